"""The needs of a batch of a process that works on it: a format of the ledger, and a chain.

A message says it in a header, so that a worker which lacks it puts the message apart, as it is, in
a queue that those take from which have it. The header's form stays in all formats.
"""

from typing import Any, Final, NamedTuple
from urllib.parse import quote

from batchord.chains.specs.chain_spec import is_spec
from batchord.chains.steps.raw_request import REQUESTS

#: The format of what this version writes: the keys of a batch, and its messages. Raise it when a
#: process of the version before would misread them. 1 had no number.
FORMAT: Final = 2
#: The formats that this version serves: one may be rolled out beside the one before.
FORMATS: Final = (FORMAT, FORMAT - 1)

#: The header of messages.
HEADER: Final = "batchord"


class Needs(NamedTuple):
    """The needs of a batch, or of a message of it."""

    format: int = 1
    #: The chain's name; None: no chain, as for a gather. Of a chain that travels as data: the
    #: chain of requests, which every worker has.
    chain: str | None = None
    #: The chain's version; None: any.
    version: str | None = None

    @classmethod
    def of(cls, format_: int, chain: str, version: str | None) -> "Needs":
        """Return what a batch of this chain needs."""
        return cls(format_, REQUESTS if is_spec(chain) else chain, version)

    @classmethod
    def read(cls, header: Any) -> "Needs":
        """Return what a message's header says; of format 1 if it has none that can be read."""
        match header:
            case {"format": int(format_), "chain": str() | None as chain}:
                version = header.get("version")
                return cls(format_, chain, version if isinstance(version, str) else None)
            case _:
                return cls()

    def header(self) -> dict[str, Any]:
        """Return the header that says it."""
        return self._asdict()

    def without_chain(self) -> "Needs":
        """Return what a gather needs."""
        return Needs(self.format)

    def queue(self, prefix: str) -> str:
        """Return the queue of messages that are put apart: of all that need the same."""
        name = f"{prefix}.apart.{self.format}"
        if self.chain is not None:
            name += f".{self.chain}"
        return name if self.version is None else f"{name}@{quote(self.version, safe='')}"


def format_of(text: str | None) -> int:
    """Return the format that a batch's `meta` names; ValueError if it is no number."""
    return 1 if text is None else int(text)
