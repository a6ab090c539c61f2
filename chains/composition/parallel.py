"""Branches side by side on one input."""

from collections.abc import Iterable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

from batchord.chains.composition.as_runnable import coerce
from batchord.chains.composition.runnable import Runnable
from batchord.chains.config import RunnableConfig, max_concurrency
from batchord.chains.errors import prefix_step
from batchord.chains.runtime.concurrency import as_ended, current_gate, gated_context
from batchord.chains.runtime.item_context import at


class Parallel(Runnable[Any, dict[str, Any]]):
    """Branches side by side on one input; the output has one entry per branch, in their order.

    When one branch fails, the others are cancelled and have ended before its error is raised.
    """

    def __init__(self, branches: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        super().__init__()
        given = {**(branches or {}), **more}
        if not given:
            raise ValueError("a parallel needs at least one branch")
        for key in given:
            if not isinstance(key, str):
                raise TypeError(f"a branch is named by a str, not {type(key).__name__}")
        self.branches: dict[str, Runnable[Any, Any]] = {
            key: coerce(branch) for key, branch in given.items()
        }

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        # In a batch its gate bounds the branches; a single call is bounded by its own config.
        limit = max_concurrency(config) if current_gate() is None else None
        context = gated_context(limit) if limit else None
        outputs: dict[str, Any] = dict.fromkeys(self.branches)
        keys = list(self.branches)
        calls = [
            partial(_branch, key, branch, input, config, kwargs)
            for key, branch in self.branches.items()
        ]
        flight = as_ended(iter(calls), context=context, stops=lambda error: True)
        async with aclosing(flight):
            async for ended in flight:
                if ended.error is not None:
                    prefix_step(ended.error, keys[ended.index])
                    raise ended.error
                outputs[keys[ended.index]] = ended.value
        return outputs

    def fingerprint(self) -> Any:
        return {key: branch.fingerprint() for key, branch in self.branches.items()}

    def children(self) -> Iterable[Runnable[Any, Any]]:
        return self.branches.values()

    def plain(self, output: Any) -> Any:
        return {key: branch.plain(output[key]) for key, branch in self.branches.items()}


async def _branch(
    key: str,
    branch: Runnable[Any, Any],
    input: Any,
    config: RunnableConfig | None,
    kwargs: Mapping[str, Any],
) -> Any:
    with at(key):
        return await branch.ainvoke(input, config, **kwargs)
