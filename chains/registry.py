"""Chains by name: a batch names its chain, and a worker finds it here. No code travels."""

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pydantic

from chains.coerce import coerce
from chains.errors import ChainNotFound, InvalidInput, validation_message
from chains.retry import RetryPolicy
from chains.runnable import Runnable

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class RegisteredChain:
    """A chain under its name, with what it takes and gives."""

    name: str
    chain: Runnable[Any, Any]
    #: What an input must fit, as pydantic reads types; None: anything.
    input_type: Any = None
    output_type: Any = None
    #: Seconds that one item may run; None: the worker's default.
    timeout: float | None = None
    #: Of its code, as its author counts; outputs of another version are not taken from a cache.
    version: str | None = None
    #: When an item of a submitted batch that has failed is tried again; None: never.
    retry: RetryPolicy | None = None
    #: What was given to `register`, to tell a repeated registration from another chain.
    source: Any = field(default=None, repr=False, compare=False)
    _adapters: Mapping[str, pydantic.TypeAdapter[Any]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def input_schema(self) -> dict[str, Any] | None:
        """JSON schema of an input; None if anything goes."""
        return self._schema("input", "validation")

    @property
    def output_schema(self) -> dict[str, Any] | None:
        """JSON schema of an output; None if unknown."""
        return self._schema("output", "serialization")

    @property
    def output_adapter(self) -> pydantic.TypeAdapter[Any] | None:
        """What reads an output as its type; None if that is unknown."""
        return self._adapters.get("output")

    def validate_json(self, text: str) -> Any:
        """The JSON text as the chain wants it (a model, say), or InvalidInput that says what is
        wrong.

        The message names places and expectations, never the value.
        """
        adapter = self._adapters.get("input")
        if adapter is None:
            return json.loads(text)
        try:
            return adapter.validate_json(text)
        except pydantic.ValidationError as error:
            raise InvalidInput(
                f"the input of chain {self.name!r} {validation_message(error)}"
            ) from None

    def is_like(self, other: "RegisteredChain") -> bool:
        """Whether the other is the same chain, registered in the same way."""
        mine = (self.input_type, self.output_type, self.timeout, self.retry, self.version)
        return self.source is other.source and mine == (
            other.input_type,
            other.output_type,
            other.timeout,
            other.retry,
            other.version,
        )

    def _schema(
        self, side: str, mode: Literal["validation", "serialization"]
    ) -> dict[str, Any] | None:
        adapter = self._adapters.get(side)
        return None if adapter is None else adapter.json_schema(mode=mode)


class Registry:
    """Chains by name; safe to read from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chains: dict[str, RegisteredChain] = {}

    def register(
        self,
        name: str,
        chain: Any,
        *,
        input_type: Any = None,
        output_type: Any = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        version: str | None = None,
        replace: bool = False,
    ) -> RegisteredChain:
        """Make the chain known under the name; `chain` is anything that `coerce` takes.

        `retry`: an item of a submitted batch whose error may pass (a provider that is down, a
        timeout) is put off and tried again, also by another worker. What its steps have given
        meanwhile is kept, so that those are not run again.

        `version`: change it when a change of code should give other outputs: a batch with `cache`
        takes none of another version.

        Registering the same again changes nothing. ValueError for a bad name or timeout, and for a
        name that another chain has, unless `replace`; TypeError for a type that pydantic cannot
        check.
        """
        _check(name, timeout)
        entry = RegisteredChain(
            name=name,
            chain=coerce(chain),
            input_type=input_type,
            output_type=output_type,
            timeout=timeout,
            retry=retry,
            version=version,
            source=chain,
            _adapters=_adapters(input=input_type, output=output_type),
        )
        with self._lock:
            known = self._chains.get(name)
            if known is not None and not replace:
                if known.is_like(entry):
                    return known
                raise ValueError(
                    f"another chain is registered as {name!r}: choose another name, or pass "
                    "replace=True"
                )
            self._chains[name] = entry
            return entry

    def get(self, name: str) -> RegisteredChain:
        """The chain of this name, or ChainNotFound."""
        try:
            return self._chains[name]
        except KeyError:
            raise ChainNotFound(name, list(self._chains)) from None

    def all(self) -> dict[str, RegisteredChain]:
        """All chains by name, sorted: a copy."""
        return dict(sorted(self._chains.items()))


def _check(name: str, timeout: float | None) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a chain: 1 to 128 of A-Z a-z 0-9 _ . - and a letter or "
            "digit first"
        )
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be a positive number of seconds, not {timeout!r}")


def _adapters(**types: Any) -> dict[str, pydantic.TypeAdapter[Any]]:
    adapters = {}
    for side, kind in types.items():
        if kind is None:
            continue
        try:
            adapters[side] = pydantic.TypeAdapter(kind)
        except pydantic.PydanticSchemaGenerationError as error:
            raise TypeError(
                f"{side}_type={kind!r} is not a type that pydantic can check"
            ) from error
    return adapters


_registry = Registry()

register = _registry.register
get_chain = _registry.get
registered = _registry.all
