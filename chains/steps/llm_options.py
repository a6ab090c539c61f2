"""Options of a model's call: which are given, and which would lose an answer that is paid for."""

from collections.abc import Mapping
from typing import Any


def given(**options: Any) -> dict[str, Any]:
    """Those of the options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def refuse_lost(options: Mapping[str, Any]) -> None:
    """Refuse options whose answers would be paid for and dropped."""
    sent = {**options, **(options.get("extra_body") or {})}
    if sent.get("stream"):
        raise ValueError("stream: an answer is taken whole, leave it out")
    if sent.get("n") not in (None, 1):
        raise ValueError(
            "n: of several answers only the first would be kept: submit the input as often, or use "
            "Request, which gives the whole answer"
        )
    tools = sent.get("tools") or ()
    if sent.get("functions") or any(map(_is_function, tools)):
        raise ValueError(
            "tools: nobody here runs the functions that a model calls, and its answer is one text: "
            "use Request, which gives the whole answer"
        )


def _is_function(tool: Any) -> bool:
    """Whether the model's answer may be a call of it, which the caller has to make."""
    return not isinstance(tool, Mapping) or tool.get("type") in (None, "function", "custom")
