"""Options of a call, in LangChain's words."""

import sys
import uuid
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict, cast

from batchord.chains.langchain.inspection import with_handler

#: How often a function may return another chain to be run, where the config does not say.
#: LangChain's default too, which its `merge_configs` takes for none.
RECURSION_LIMIT: Final = 25


class RunnableConfig(TypedDict, total=False):
    """Options of one call.

    Batchord's steps use `max_concurrency` only; foreign steps and functions with a parameter
    `config` get all others unchanged.
    """

    #: How many inputs, and how many calls of steps, run at once; None or absent: no bound.
    max_concurrency: int | None
    tags: list[str]
    metadata: dict[str, Any]
    run_name: str
    callbacks: Any
    recursion_limit: int
    configurable: dict[str, Any]
    run_id: uuid.UUID | None


#: Fields that workers are told as they are, and the only fields that are not `configurable`.
_TOLD: Final = ("tags", "metadata", "run_name", "recursion_limit")
_KNOWN: Final = frozenset(RunnableConfig.__annotations__)


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


def portable(config: Mapping[str, Any]) -> RunnableConfig:
    """Return what of the config the workers are told, without its empty fields.

    Left out: `max_concurrency`, which is the batch's; `run_id`, which names the caller's run; a
    `recursion_limit` of 25, which LangChain takes for none; and what LangGraph keeps in
    `configurable` for the process it runs in, under names with two underscores in front. A field
    of another name is moved to `configurable`, as LangChain does.

    Raises:
        TypeError: it has `callbacks`.
    """
    if config.get("callbacks"):
        raise TypeError(
            "config['callbacks'] are objects of this process, which no worker can call: leave "
            "them out, or install langchain-core and pass them to a RemoteRunnable"
        )
    told = {name: config[name] for name in _TOLD if config.get(name)}
    if told.get("recursion_limit") == RECURSION_LIMIT:
        del told["recursion_limit"]
    others = {key: value for key, value in config.items() if key not in _KNOWN}
    configurable = {
        key: value
        for key, value in {**(config.get("configurable") or {}), **others}.items()
        if value is not None and not str(key).startswith("__")
    }
    if configurable:
        told["configurable"] = configurable
    return cast(RunnableConfig, told)


def filled(config: RunnableConfig | None) -> RunnableConfig:
    """Return the config with all keys that LangChain fills in: code may read them unasked.

    Where LangChain is loaded, what it hands down from the calling Runnable is in it.
    """
    langchain: Any = sys.modules.get("langchain_core.runnables.config")
    if langchain is not None:
        return cast(RunnableConfig, langchain.ensure_config(config))
    known = {key: value for key, value in (config or {}).items() if value is not None}
    empty: dict[str, Any] = {"tags": [], "metadata": {}, "callbacks": None}
    empty |= {"recursion_limit": RECURSION_LIMIT, "configurable": {}}
    return cast(RunnableConfig, {**empty, **known})


def merged(bound: RunnableConfig, given: RunnableConfig | None) -> RunnableConfig:
    """Merge two configs: tags, metadata, callbacks and configurable of both; else `given` wins."""
    if not given:
        return bound
    found: dict[str, Any] = {**bound, **{k: v for k, v in given.items() if v is not None}}
    for key in ("metadata", "configurable"):
        if key in found:
            found[key] = {**(bound.get(key) or {}), **(given.get(key) or {})}
    if "tags" in found:
        found["tags"] = sorted({*(bound.get("tags") or ()), *(given.get("tags") or ())})
    if bound.get("callbacks") and given.get("callbacks"):
        found["callbacks"] = _both(bound["callbacks"], given["callbacks"])
    return cast(RunnableConfig, found)


def _both(bound: Any, given: Any) -> Any:
    """Return callbacks of both; each is a list of handlers or a manager of LangChain's."""
    for one, other in ((given, bound), (bound, given)):
        if isinstance(other, list):
            for handler in other:
                one = with_handler(one, handler)
            return one
    return given.merge(bound)


def max_concurrency(config: RunnableConfig | None) -> int | None:
    """Return the config's `max_concurrency`, or None; ValueError unless it is a positive int."""
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
