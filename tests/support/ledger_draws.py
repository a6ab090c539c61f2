"""Draws of `test_ledger_machine`: batches, and events during an operation."""

from typing import Final

from hypothesis import strategies as st

from batchord.ledger.core.sharding import Cut

#: After how many round trips of an operation something happens, and what: see `Machine.happens`.
Fault = tuple[int, str] | None
FAULTS: Final = st.none() | st.tuples(
    st.integers(0, 3) | st.integers(0, 12),
    st.sampled_from(["dies", "sweep", "workers", "publisher", "cancel", "pause", "retry"]),
)
SOME: Final = st.sets(st.integers(0, 30), min_size=1, max_size=6)
CUTS: Final = st.builds(
    Cut,
    items_per_task=st.sampled_from([None, 1, 2, 3]),
    items_per_slot=st.just(1),
    shard_tasks=st.integers(1, 3),
    shard_items=st.integers(1, 6),
    window=st.integers(1, 3),
    priority=st.sampled_from([0, 5]),
)
WINDOWS: Final = st.sampled_from([None, 60.0])
#: How many inputs, whether with custom_ids and an idempotency key, how cut, with what window.
Submission = tuple[int, bool, Cut, float | None]
SUBMISSIONS: Final = st.tuples(st.integers(1, 25), st.booleans(), CUTS, WINDOWS)

#: The same amid a retry, whose first messages are out after about eight round trips.
AMID_RETRY: Final = st.none() | st.tuples(
    st.integers(1, 20), st.sampled_from(["workers", "workers", "dies", "sweep", "pause", "cancel"])
)
