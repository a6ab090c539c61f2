"""Options of a call, in LangChain's words."""

import uuid
import warnings
from collections.abc import Sequence
from typing import Any, TypedDict, cast


class RunnableConfig(TypedDict, total=False):
    """Options of one call. Steps of ours use `max_concurrency` only; the rest is handed on as it is
    to foreign steps and to functions that have a parameter `config`."""

    #: How many inputs, and how many calls of steps, run at once; None or absent: no bound.
    max_concurrency: int | None
    tags: list[str]
    metadata: dict[str, Any]
    run_name: str
    callbacks: Any
    recursion_limit: int
    configurable: dict[str, Any]
    run_id: uuid.UUID | None


def config_list(
    config: RunnableConfig | Sequence[RunnableConfig] | None, length: int
) -> list[RunnableConfig]:
    """One config for each of `length` inputs.

    A list is taken as it is and must be as long as the inputs (ValueError). A `run_id` that is
    given once names the first input only, as two runs cannot share it.
    """
    if isinstance(config, Sequence):
        if len(config) != length:
            raise ValueError(
                f"config is a list of {len(config)} for {length} inputs: give one config, or a "
                "list as long as the inputs"
            )
        return [_checked(one) for one in config]
    first = _checked(config)
    if first.get("run_id") is None or length < 2:
        return [first] * length
    warnings.warn("run_id is used for the first input only", RuntimeWarning, stacklevel=2)
    rest = cast(RunnableConfig, {key: value for key, value in first.items() if key != "run_id"})
    return [first, *[rest] * (length - 1)]


def max_concurrency(config: RunnableConfig | None) -> int | None:
    """The bound that the config asks for, or None; ValueError unless it is a positive int."""
    limit = (config or {}).get("max_concurrency")
    if limit is None:
        return None
    if type(limit) is not int or limit < 1:
        raise ValueError(f"max_concurrency must be a positive int or None, not {limit!r}")
    return limit


def _checked(config: object) -> RunnableConfig:
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise TypeError(f"config must be a dict or a list of dicts, not {type(config).__name__}")
    return cast(RunnableConfig, config)
