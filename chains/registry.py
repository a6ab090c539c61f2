"""Chains by name: a batch names its chain, and a worker finds it here. No code travels."""

import hashlib
import json
import re
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pydantic

from batchord.chains.composition.as_runnable import coerce
from batchord.chains.composition.runnable import Runnable
from batchord.chains.errors import ChainNotFound, InvalidInput
from batchord.chains.explain import validation_message
from batchord.chains.runtime.retry import RetryPolicy

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
    #: Whether what its steps use is counted by `report_usage` where Batchord cannot see it.
    reports_usage: bool = False
    #: Seconds for which an item bears that its provider is down; None: the worker's default.
    outage_patience: float | None = None
    #: What was given to `register`, to tell a repeated registration from another chain.
    source: Any = field(default=None, repr=False, compare=False)
    #: The module that registered it.
    module: str = field(default="", repr=False, compare=False)
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
        """The adapter that reads an output as its type; None if the type is unknown."""
        return self._adapters.get("output")

    def validate_json(self, text: str) -> Any:
        """Parse the JSON text to the chain's input type (a model, say), or raise InvalidInput.

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

    def why_not_cached(self) -> str | None:
        """Return why no batch may take its outputs from the cache; None: one may."""
        why = None if self.version is not None else self.chain.why_not_cached()
        return why and (
            f"{why}: register the chain with version=, and change that when other outputs are due"
        )

    def why_not_metered(self) -> str | None:
        """Return why no batch of it may have a budget; None: one may."""
        why = None if self.reports_usage else self.chain.why_not_metered()
        return why and (
            f"{why}: call batchord.report_usage in the step, if it uses anything, and register the "
            "chain with reports_usage=True"
        )

    def digest(self) -> str:
        """Return a digest of the file of its module, its types and its settings here.

        It tells the versions of a chain apart. What the environment says, such as a model's name,
        and modules that its module imports do not count.
        """
        told = [self.version, self.timeout, self.input_schema, self.output_schema]
        found = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        found.update(_source_of(self.module))
        return found.hexdigest()[:16]

    def is_like(self, other: "RegisteredChain") -> bool:
        """Whether the other is the same chain, registered in the same way."""
        return (
            self._settings() == other._settings()
            and self.input_schema == other.input_schema
            and self.output_schema == other.output_schema
            and (self.source is other.source or self._is_defined_as(other))
        )

    def _is_defined_as(self, other: "RegisteredChain") -> bool:
        # A module that is run is another one than the same module imported.
        if "__main__" not in (self.module, other.module) and self.module != other.module:
            return False
        try:
            return bool(definition(self.chain) == definition(other.chain))
        except Exception:  # noqa: BLE001
            return False  # arrays, say, do not compare

    def _settings(self) -> tuple[Any, ...]:
        return (
            self.timeout,
            self.retry,
            self.outage_patience,
            self.version,
            self.reports_usage,
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
        outage_patience: float | None = None,
        version: str | None = None,
        reports_usage: bool = False,
        replace: bool = False,
    ) -> RegisteredChain:
        """Make the chain known under the name; `chain` is anything that `coerce` takes.

        `retry`: an item of a submitted batch whose error may pass (a provider that is down, a
        timeout) is put off and tried again, also by another worker. What its steps have given
        meanwhile is kept, so that those are not run again.

        `outage_patience`: seconds for which the chain's items wait for a provider that is down,
        before their batch pauses (None: BATCHORD_OUTAGE_PATIENCE, an hour). 0: what a call meets is
        its own.

        `version`: change it when a change of code should give other outputs: a batch with `cache`
        takes none of another version. A chain with steps whose settings are unknown (objects with
        `invoke`, parts that LangChain cannot serialize) has no cache without one.

        `reports_usage`: steps whose usage Batchord cannot see report it by `report_usage`, or use
        nothing; without it a batch of such a chain has no budget.

        Registering the same again is allowed: the same chain, or one of the same definition (a
        module that is imported twice, a notebook's cell that is run again), which then replaces the
        first. A notebook or a console may also replace a chain by another one. ValueError for a bad
        name or timeout, and elsewhere for a name that another chain has, unless `replace`;
        TypeError for a type that pydantic cannot check.
        """
        _check(name, timeout)
        module = str(sys._getframe(1).f_globals.get("__name__"))
        if outage_patience is not None and not outage_patience >= 0:
            raise ValueError(f"outage_patience must not be negative, but is {outage_patience!r}")
        entry = RegisteredChain(
            name=name,
            chain=coerce(chain),
            input_type=input_type,
            output_type=output_type,
            timeout=timeout,
            retry=retry,
            outage_patience=outage_patience,
            version=version,
            reports_usage=reports_usage,
            source=chain,
            module=module,
            _adapters=_adapters(input=input_type, output=output_type),
        )
        with self._lock:
            known = self._chains.get(name)
            if known is not None and known.source is chain and known.is_like(entry):
                return known
            may = replace or known is None or known.is_like(entry) or _is_interactive(module)
            if not may:
                raise ValueError(
                    f"another chain is registered as {name!r}: choose another name, or pass "
                    "replace=True"
                )
            self._chains[name] = entry
            return entry

    def get(self, name: str) -> RegisteredChain:
        """Return the chain of this name, or raise ChainNotFound."""
        try:
            return self._chains[name]
        except KeyError:
            raise ChainNotFound(name, list(self._chains)) from None

    def all(self) -> dict[str, RegisteredChain]:
        """All chains by name, sorted: a copy."""
        return dict(sorted(self._chains.items()))


def definition(chain: Runnable[Any, Any]) -> Any:
    """Return what the chain was written as: its settings, and the code of its functions."""
    own = getattr(chain, "definition", None)
    children = [definition(each) for each in chain.children()]
    return type(chain).__qualname__, chain.name, chain.fingerprint(), own, children


def _source_of(module: str) -> bytes:
    """Return the text of a module's file; empty if it has none."""
    path = getattr(sys.modules.get(module), "__file__", None)
    try:
        return Path(path).read_bytes() if path else b""
    except OSError:
        return b""


def _is_interactive(module: str) -> bool:
    """Whether a notebook or a console registers: there a name may be given to another chain."""
    return module == "__main__" and hasattr(sys, "ps1")


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
