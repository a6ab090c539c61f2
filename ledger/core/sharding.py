"""Shards of a batch, and tasks of a shard."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

#: "auto" items per task: one, unless items take less than SHORT_ITEM seconds; then as many as take
#: `TASK_SECONDS` together, but at most `MOST_PER_TASK`.
SHORT_ITEM: Final = 0.005
TASK_SECONDS: Final = 0.02
MOST_PER_TASK: Final = 100

#: Shards that are published before an item has ended; as many items as a shard has, once they have
#: ended, open the window by one more.
FIRST_WINDOW: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How a batch is cut into shards and tasks; stored when it is sealed."""

    #: Items that a task carries; None: "auto", by how long they take.
    items_per_task: int | None
    #: Items that share a place in flight: what one call of the chain's provider takes.
    items_per_slot: int
    #: Tasks of a shard, and items of one, at most.
    shard_tasks: int
    shard_items: int
    #: Shards that may be published and not closed.
    window: int
    #: 0 is served first, 9 last.
    priority: int
    #: Items that may be published and have no outcome; None: as the window has it.
    most_items: int | None = None

    @property
    def first_window(self) -> int:
        """Shards that may be published before an item has ended."""
        return FIRST_WINDOW if self.most_items is None else min(self.window, 2 * FIRST_WINDOW)

    def fields(self) -> dict[str, str | int]:
        """Return the fields of the batch's `meta`."""
        fields = {name: n for name, n in asdict(self).items() if n is not None}
        return {
            **fields,
            "items_per_task": self.items_per_task or "auto",
            "first_window": self.first_window,
        }


@dataclass(frozen=True, slots=True)
class Shard:
    """Consecutive items that are published together, in tasks of up to `items_per_task`."""

    number: int
    start: int
    stop: int
    items_per_task: int
    items_per_slot: int = 1
    #: Whether it was published before: only what has no outcome is published again.
    again: bool = False

    def tasks(self) -> list[range]:
        """Return the items of each task."""
        step = self.items_per_task
        return [range(at, min(at + step, self.stop)) for at in range(self.start, self.stop, step)]

    def slots_of(self, items: range) -> int:
        """Return the number of slots that these items take."""
        return -(-len(items) // self.items_per_slot)

    def tasks_of(self, indexes: Iterable[int]) -> list[range]:
        """Return, in order, the items of each task that carries any of `indexes`."""
        step = self.items_per_task
        starts = sorted({index - (index - self.start) % step for index in indexes})
        return [range(at, min(at + step, self.stop)) for at in starts]
