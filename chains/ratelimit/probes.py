"""Small requests that tell whether a model answers at all."""

from typing import Any, Final

#: What a model is asked.
PROBE: Final = "Say: ok"

#: By path, what is posted beside the model's name.
_BODIES: Final[dict[str, dict[str, Any]]] = {
    "/chat/completions": {"messages": [{"role": "user", "content": PROBE}]},
    "/responses": {"input": PROBE},
    "/completions": {"prompt": PROBE, "max_tokens": 1},
    "/embeddings": {"input": PROBE},
    "/moderations": {"input": PROBE},
    "/pooling": {"input": PROBE},
    "/score": {"text_1": PROBE, "text_2": PROBE},
    "/rerank": {"query": PROBE, "documents": [PROBE]},
}


def probe_for(path: str, model: Any) -> dict[str, Any]:
    """Return the body of a small request to this path, which `steps.raw_request.PATHS` has."""
    return {**_BODIES[path]} if model is None else {"model": model, **_BODIES[path]}
