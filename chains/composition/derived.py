"""Chains made from another one: retried, with fallbacks, with bound arguments, for each element."""

from collections.abc import Iterable, Mapping
from contextlib import aclosing, nullcontext
from functools import partial
from typing import Any, cast

from batchord.chains.composition.as_runnable import coerce
from batchord.chains.composition.parallel import Parallel
from batchord.chains.composition.runnable import Runnable
from batchord.chains.composition.step import Step
from batchord.chains.config import RunnableConfig, max_concurrency, merged
from batchord.chains.errors import InvalidInput
from batchord.chains.explain import PutOff
from batchord.chains.runtime.concurrency import as_ended, current_gate, gated_context
from batchord.chains.runtime.item_context import at
from batchord.chains.runtime.retry import RetryPolicy, attempts


class Derived(Runnable[Any, Any]):
    """A chain that has another one's name, fingerprint and outputs, unless it says otherwise."""

    def __init__(self, chain: Runnable[Any, Any]) -> None:
        super().__init__(name=chain.name)
        self.inputs_per_call = chain.inputs_per_call
        self._chain = chain

    def fingerprint(self) -> Any:
        return self._chain.fingerprint()

    def plain(self, output: Any) -> Any:
        return self._chain.plain(output)

    def children(self) -> Iterable[Runnable[Any, Any]]:
        return [self._chain]

    def merged_config(self, config: RunnableConfig) -> RunnableConfig:
        return self._chain.merged_config(config)


class Retrying(Derived):
    """The chain, begun again as a whole as the policy says."""

    def __init__(self, chain: Runnable[Any, Any], policy: RetryPolicy) -> None:
        super().__init__(chain)
        self._policy = policy

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return await attempts(self._policy, lambda: self._chain.ainvoke(input, config, **kwargs))


class Bound(Derived):
    """The chain with keyword arguments and a config that each of its calls has."""

    def __init__(
        self, chain: Runnable[Any, Any], options: Mapping[str, Any], config: RunnableConfig
    ) -> None:
        super().__init__(chain)
        max_concurrency(config)
        self._options = dict(options)
        self._config = config

    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> "Bound":
        """As LangChain: what is bound again replaces what was bound before."""
        again = cast(RunnableConfig, {**self._config, **(config or {}), **kwargs})
        return Bound(self._chain, self._options, again)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        config = merged(self._config, config)
        return await self._chain.ainvoke(input, config, **{**self._options, **kwargs})

    def fingerprint(self) -> Any:
        # Callbacks and the like have no JSON form, and do not decide on an output.
        config = self._config.get("configurable") or {}
        found = [self._options, {**config}]
        return [*found, super().fingerprint()] if any(found) else super().fingerprint()

    def merged_config(self, config: RunnableConfig) -> RunnableConfig:
        return self._chain.merged_config(merged(self._config, config))


class Fallbacks(Derived):
    """The chain, and others that are tried in turn for an input that it has failed with."""

    def __init__(
        self,
        chain: Runnable[Any, Any],
        fallbacks: Iterable[Any],
        handled: tuple[type[BaseException], ...],
        key: str | None,
    ) -> None:
        super().__init__(chain)
        self._chains = (chain, *map(coerce, fallbacks))
        self._handled = handled
        self._key = key

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        if self._key is not None and not isinstance(input, dict):
            raise ValueError(
                f"exception_key={self._key!r}: the input must be a dict, not {type(input).__name__}"
            )
        first: BaseException | None = None
        last: BaseException | None = None
        for place, chain in enumerate(self._chains):
            value = input if self._key is None or last is None else {**input, self._key: last}
            with at(f"fallback-{place}") if place else nullcontext():
                try:
                    return await chain.ainvoke(value, config, **kwargs)
                except PutOff:
                    raise  # it waits for its provider, and has not failed
                except self._handled as error:
                    first, last = first or error, error
        raise first or RuntimeError("there is always a first chain")

    def fingerprint(self) -> Any:
        return [chain.fingerprint() for chain in self._chains]

    def children(self) -> Iterable[Runnable[Any, Any]]:
        return self._chains

    def unset(self, environment: Mapping[str, str]) -> list[str]:
        """Return none if one of the chains can be called: the others fall back on it."""
        return min((chain.unset(environment) for chain in self._chains), key=len)

    def plain(self, output: Any) -> Any:
        """Convert it by the first chain that can: all of them give the same type."""
        for chain in self._chains[:-1]:
            try:
                return chain.plain(output)
            except Exception:  # noqa: BLE001, S112
                continue
        return self._chains[-1].plain(output)


class Each(Derived):
    """The chain for each element of its input, a list; the output is a list in that order."""

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[Any]:
        if isinstance(input, (str, bytes, Mapping)) or not isinstance(input, Iterable):
            raise InvalidInput(f"map takes a list of inputs, not {type(input).__name__}")
        limit = max_concurrency(config) if current_gate() is None else None
        calls = [partial(self._chain.ainvoke, each, config, **kwargs) for each in input]
        outputs: list[Any] = [None] * len(calls)
        flight = as_ended(
            iter(calls),
            context=gated_context(limit) if limit else None,
            stops=lambda error: True,
        )
        async with aclosing(flight):
            async for ended in flight:
                if ended.error is not None:
                    raise ended.error
                outputs[ended.index] = ended.value
        return outputs

    def fingerprint(self) -> Any:
        return ["each", self._chain.fingerprint()]

    def plain(self, output: Any) -> Any:
        return [self._chain.plain(each) for each in output]


class Assign(Runnable[Any, dict[str, Any]]):
    """The input, a dict, and the outputs of branches that take it."""

    def __init__(self, branches: Mapping[str, Any]) -> None:
        super().__init__()
        self._branches = Parallel(branches)

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        _check_mapping("assign", input)
        return {**input, **await self._branches.ainvoke(input, config, **kwargs)}

    def fingerprint(self) -> Any:
        return ["assign", self._branches.fingerprint()]

    def children(self) -> Iterable[Runnable[Any, Any]]:
        return [self._branches]

    def plain(self, output: Any) -> Any:
        named = {key: output[key] for key in self._branches.branches}
        return {**output, **self._branches.plain(named)}


class Pick(Step[Any, Any]):
    """One value of the input, a dict (None if it lacks the key); or a dict of those it has."""

    is_call = False

    def __init__(self, keys: str | list[str]) -> None:
        super().__init__()
        self._keys = keys

    async def _run(self, input: Any, config: RunnableConfig, **options: Any) -> Any:
        _check_mapping("pick", input)
        if isinstance(self._keys, str):
            return input.get(self._keys)
        return {key: input[key] for key in self._keys if key in input} or None

    def fingerprint(self) -> Any:
        return ["pick", self._keys]


def _check_mapping(name: str, input: Any) -> None:
    if not isinstance(input, Mapping):
        raise InvalidInput(f"{name} takes a dict, not {type(input).__name__}")
