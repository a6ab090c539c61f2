"""Competitors: how their workers and their caller are started."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Arguments = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Competitor:
    """One way to run many items; commands are what follows `python`."""

    name: str
    caller: Arguments
    workers: tuple[Arguments, ...] = ()
    #: Processes that announce themselves, if not one a worker.
    announcements: int | None = None
    #: Whether it needs the peers' environment; else it runs with the versions that we run with.
    peer: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    #: Further fields of each request to the caller.
    options: Mapping[str, Any] = field(default_factory=dict)
    #: Lists in Redis whose lengths are its queue.
    queues: tuple[str, ...] = ()

    @property
    def ready(self) -> int:
        """How many announcements there will be."""
        return len(self.workers) if self.announcements is None else self.announcements

    def named(self, name: str, **options: Any) -> "Competitor":
        """Return the same under another name, with more options for its caller."""
        return replace(self, name=name, options={**self.options, **options})
