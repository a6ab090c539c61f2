"""Inspection of LangChain's objects: usage, places of errors, settings, messages.

Nothing here imports langchain_core before the user's code has: an object of it can only exist then.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from batchord.chains import pricing
from batchord.chains.usage import Usage

if TYPE_CHECKING:
    from batchord.chains.runtime.item_context import ItemContext

#: LangChain tags the run of a branch with this and the branch's name.
_BRANCH: Final = "map:key:"
_NOT_SERIALIZED: Final = "not_implemented"
_DEEPEST: Final = 20


def loaded_class(module: str, name: str) -> Any:
    """Return the class if its module is loaded, else an empty tuple (for `isinstance`)."""
    return getattr(sys.modules.get(module), name, ())


def is_loaded() -> bool:
    """Return whether this process has imported LangChain's Runnables."""
    return "langchain_core.runnables.config" in sys.modules


def is_runnable(value: Any) -> bool:
    """Return whether the value is a LangChain Runnable."""
    return isinstance(value, loaded_class("langchain_core.runnables.base", "Runnable"))


def is_tool_input(error: BaseException) -> bool:
    """Return whether a LangChain tool raised the error as it read its input."""
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        module = str(frame.f_globals.get("__name__"))
        if frame.f_code.co_name == "_parse_input" and module.startswith("langchain_core.tools"):
            return True
        trace = trace.tb_next
    return False


def lacks_async(error: NotImplementedError) -> bool:
    """Return whether a method `aX` raised the error on an object that has a method `X`."""
    trace, frame = error.__traceback__, None
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
    if frame is None or not frame.f_code.co_name.startswith("a"):
        return False
    method = getattr(frame.f_locals.get("self"), frame.f_code.co_name[1:], None)
    return callable(method)


def messages(value: Any) -> list[dict[str, Any]] | None:
    """Return a prompt value, a message, or a list of messages in OpenAI's form; else None."""
    if isinstance(value, loaded_class("langchain_core.prompt_values", "PromptValue")):
        value = value.to_messages()
    message = loaded_class("langchain_core.messages.base", "BaseMessage")
    found = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not any(isinstance(one, message) for one in found):
        return None
    from langchain_core.messages import convert_to_openai_messages

    return list(convert_to_openai_messages(found))


class Settings(NamedTuple):
    """An object's settings as JSON, and the class of a part that cannot be serialized."""

    tree: Any
    lacking: str | None
    #: How the parts that cannot be serialized show themselves.
    reprs: tuple[str, ...]


def settings(value: Any) -> Settings:
    """Return what LangChain can serialize of the object; secrets are left out."""
    from langchain_core.load.dump import dumpd

    lacking: list[Any] = []
    tree = _without_reprs(dumpd(value), lacking)
    first = str(lacking[0]["id"][-1]) if lacking else None
    return Settings(tree, first, tuple(str(each.get("repr")) for each in lacking))


def _without_reprs(tree: Any, lacking: list[Any]) -> Any:
    # An address in a `repr` differs from process to process.
    if isinstance(tree, Mapping):
        if tree.get("type") == _NOT_SERIALIZED and tree.get("lc") == 1:
            lacking.append(tree)
            return [_NOT_SERIALIZED, tree["id"]]
        return {key: _without_reprs(each, lacking) for key, each in tree.items()}
    if isinstance(tree, list):
        return [_without_reprs(each, lacking) for each in tree]
    return tree


def parts(value: Any, depth: int = 0) -> Iterator[Any]:
    """Yield the Runnable and the Runnables that its attributes hold."""
    yield value
    if depth < _DEEPEST:
        for each in list(getattr(value, "__dict__", {}).values()):
            for part in _each(each):
                if is_runnable(part):
                    yield from parts(part, depth + 1)


def _each(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, (list, tuple)):
        yield from value
    else:
        yield value


def is_sync_only(value: Any) -> bool:
    """Return whether a part is a generator function that has no async form."""
    generator = loaded_class("langchain_core.runnables.base", "RunnableGenerator")
    return any(
        isinstance(part, generator) and not hasattr(part, "_atransform") for part in parts(value)
    )


def unmetered(value: Any) -> str | None:
    """Return the name of a part whose usage LangChain does not report, or None."""
    retriever = loaded_class("langchain_core.vectorstores.base", "VectorStoreRetriever")
    return next(
        (
            type(part).__name__
            for part in parts(value)
            if isinstance(part, retriever) and part.vectorstore.embeddings is not None
        ),
        None,
    )


@contextmanager
def inherited(config: Mapping[str, Any]) -> Iterator[None]:
    """Let the Runnables that are called inside inherit the config, as LangChain's own do."""
    variable = getattr(
        sys.modules.get("langchain_core.runnables.config"), "var_child_runnable_config", None
    )
    if variable is None:
        yield
        return
    # The names of a run are its own.
    handed = {key: each for key, each in config.items() if key not in ("run_id", "run_name")}
    token = variable.set(handed)
    try:
        yield
    finally:
        variable.reset(token)


def with_handler(callbacks: Any, handler: Any) -> Any:
    """Return the callbacks (None, a list, or a manager) and the handler."""
    if callbacks is None:
        return [handler]
    if isinstance(callbacks, list):
        return [*callbacks, handler]
    manager = callbacks.copy()
    manager.add_handler(handler, inherit=True)
    return manager


def observer(run: "ItemContext") -> Any:
    """Return a callback handler that counts usage for the run, and notes where errors begin."""
    return _observer_class()(run)


@cache
def _observer_class() -> Any:
    from langchain_core.callbacks.base import BaseCallbackHandler

    class Observer(_Observing, BaseCallbackHandler):  # type: ignore[misc]
        """The handler: `run_inline` keeps it in the context of the call."""

        run_inline = True

    return Observer


class _Place(NamedTuple):
    name: str
    branch: str | None
    parent: UUID | None
    model: str | None


class _Observing:
    """Notes of the runs within one call of a Runnable."""

    def __init__(self, run: "ItemContext") -> None:
        self._run = run
        self._places: dict[UUID, _Place] = {}
        #: Branches fail beside each other.
        self._failed: list[tuple[BaseException, list[str]]] = []

    def path(self, error: BaseException) -> list[str] | None:
        """Return the branches and the name of the innermost run that raised the error."""
        return next((path for failed, path in self._failed if failed is error), None)

    def _start(
        self,
        serialized: Any,
        input: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        name = more.get("name") or (serialized or {}).get("name") or "Runnable"
        branch = next((t.removeprefix(_BRANCH) for t in tags or () if t.startswith(_BRANCH)), None)
        model = (metadata or {}).get("ls_model_name")
        self._places[run_id] = _Place(str(name), branch, parent_run_id, model)

    on_chain_start = on_tool_start = on_retriever_start = _start
    on_llm_start = on_chat_model_start = _start

    def _error(self, error: BaseException, *, run_id: UUID, **more: Any) -> None:
        if self.path(error) is None:
            self._failed.append((error, self._path_to(run_id)))

    on_chain_error = on_tool_error = on_retriever_error = _error

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **more: Any) -> None:
        self._error(error, run_id=run_id)
        if self._run.is_new(run_id):
            self._run.add(Usage(requests=1))

    def on_llm_end(self, response: Any, *, run_id: UUID, **more: Any) -> None:
        place = self._places.get(run_id)
        if self._run.is_new(run_id):
            self._run.add(usage_of(response, None if place is None else place.model))

    def _path_to(self, run_id: UUID) -> list[str]:
        place = self._places.get(run_id)
        path = [] if place is None else [place.name]
        while place is not None:
            if place.branch is not None:
                path.insert(0, place.branch)
            place = None if place.parent is None else self._places.get(place.parent)
        return path


def usage_of(response: Any, asked: str | None) -> Usage:
    """Return what one call of a model used, from the LLMResult that it gave.

    Its tokens are None if the model reports none; its price is unknown then.
    """
    generation = next((one for group in response.generations for one in group), None)
    message = getattr(generation, "message", None)
    told = getattr(message, "usage_metadata", None) or {}
    if told.get("total_cost") == 0:
        return Usage()  # LangChain took it from its own cache
    said = getattr(message, "response_metadata", None) or {}
    output = response.llm_output or {}
    model = said.get("model_name") or said.get("model") or output.get("model_name") or asked
    used = _reported(told) if told else _reported(output.get("token_usage") or {})
    return pricing.priced(used.model_copy(update={"requests": 1}), str(model or ""))


def _reported(told: Mapping[str, Any]) -> Usage:
    inputs = told.get("input_token_details") or told.get("prompt_tokens_details") or {}
    outputs = told.get("output_token_details") or told.get("completion_tokens_details") or {}
    return Usage(
        input_tokens=_count(told, "input_tokens", "prompt_tokens"),
        cached_input_tokens=_count(inputs, "cache_read", "cached_tokens"),
        output_tokens=_count(told, "output_tokens", "completion_tokens"),
        reasoning_tokens=_count(outputs, "reasoning", "reasoning_tokens"),
    )


def _count(told: Mapping[str, Any], *names: str) -> int | None:
    counts = (told.get(name) for name in names)
    return next((each for each in counts if type(each) is int and 0 <= each <= 10**12), None)
