"""The app that submits to Batchord: `python -m benchmarks.ours`."""

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from batchord import Batch, Client
from benchmarks.inputs import WrongOutcome, check, inputs
from benchmarks.talk import Answer, peak_rss, serve, spending

PerTask = int | Literal["auto"]

client = Client(os.environ["BENCH_REDIS_URL"])


def outputs(batch: Batch) -> Iterator[Any]:
    """Yield the outputs in input order; every item must have succeeded, each in its place."""
    for place, item in enumerate(batch.results()):
        if item.index != place or item.status != "succeeded":
            raise WrongOutcome(f"{item.index} at {place}: {item.status} {item.error}")
        yield item.output


def run(kind: str, items: int, items_per_task: PerTask = "auto") -> Answer:
    """Submit, wait, and read all results in order, checking each as it is read."""
    with spending() as spent:
        batch = client.submit(kind, inputs(kind, items), items_per_task=items_per_task)
        batch.wait()
        check(kind, items, outputs(batch))
    return spent.row(items=items)


def submit(kind: str, items: int) -> Answer:
    """Submit and no more; nobody works."""
    # No worker has announced its chains: this process must know them.
    import benchmarks.chains  # noqa: F401

    before = peak_rss()
    with spending() as spent:
        client.submit("noop", inputs(kind, items))
    return spent.row(items=items, rss_before=before, rss_peak=peak_rss())


def crowd(kind: str, items: int, behind: int, items_per_task: PerTask = "auto") -> Answer:
    """Submit many, then a few right behind them: how long do the few take?"""
    first = client.submit(kind, inputs(kind, items), items_per_task=items_per_task)
    while not first.record().request_counts.done:
        time.sleep(0.01)
    in_front = items - first.record().request_counts.done
    with spending() as spent:
        second = client.submit(kind, inputs(kind, behind), items_per_task=items_per_task)
        second.wait()
        check(kind, behind, outputs(second))
    return spent.row(items=items, behind=behind, in_front=in_front)


def share(kind: str, beside: str | None, most: int | None, seconds: float) -> Answer:
    """Let items of 300 ms run for a while, and others beside them: how many end of either?"""
    other = None
    if beside is not None:
        given = [0.3] * 10_000 if beside == "nap" else inputs(kind, 10_000)
        other = client.submit(beside, given, max_concurrency=most)
        while not other.record().request_counts.done:
            time.sleep(0.01)
    ours = client.submit("nap", [0.3] * 10_000)
    batches = [ours] if other is None else [ours, other]
    # The first hundred of a batch have a queue of their own.
    while any(batch.record().request_counts.done < 150 for batch in batches):
        time.sleep(0.1)
    before = [batch.record().request_counts.done for batch in batches]
    with spending() as spent:
        time.sleep(seconds)
        after = [batch.record().request_counts.done for batch in batches]
    for batch in batches:
        batch.cancel()
        batch.wait()
    row = spent.row(items=after[0] - before[0])
    rates = [(now - then) / row["seconds"] for then, now in zip(before, after, strict=True)]
    return {**row, "per_second": rates[0], "beside_per_second": rates[1] if other else None}


def read(items: int) -> Answer:
    """Read the ordered results of a batch that has ended."""
    batch = client.submit("noop", inputs("noop", items))
    batch.wait()
    with spending() as spent:
        found = list(batch.results())
    check("noop", items, (item.output for item in found))
    return spent.row(items=items)


def delivery(items: int, nap: float) -> Answer:
    """Take items as they end, one about every few milliseconds: how late does each come?"""
    batch = client.submit("nap", [nap] * items, items_per_task=1)
    delays, seen = [], set()
    for item in batch.as_completed():
        if item.settled_at is None or item.output != nap:
            raise WrongOutcome(f"{item.index}: {item.status} {item.error}")
        delays.append(1000 * (time.time() - item.settled_at.timestamp()))
        seen.add(item.index)
    if seen != set(range(items)):
        raise WrongOutcome(f"{len(seen)} of {items} were delivered")
    record = batch.wait()
    if record.ended_at is None or record.in_progress_at is None:
        raise WrongOutcome(f"{batch} has not ended")
    seconds = (record.ended_at - record.in_progress_at).total_seconds()
    return {"items": items, "seconds": seconds, **percentiles(delays)}


def progress(items: int, looks: int) -> Answer:
    """Look how far a batch is, again and again."""
    batch = client.submit("noop", inputs("noop", items))
    batch.wait()
    times = []
    for _ in range(looks):
        start = time.perf_counter()
        done = batch.record().request_counts.done
        times.append(1000 * (time.perf_counter() - start))
        if done != items:
            raise WrongOutcome(f"{done} of {items} are done")
    return {"items": items, **percentiles(times)}


def percentiles(times: Iterable[float]) -> dict[str, float]:
    """Return median, 95th and 99th percentile, and the greatest, as `p50_ms` and so on."""
    ordered = sorted(times)
    last = len(ordered) - 1
    found = {f"p{percent}_ms": ordered[round(last * percent / 100)] for percent in (50, 95, 99)}
    return {**found, "max_ms": ordered[-1]}


if __name__ == "__main__":
    serve(
        run=run,
        submit=submit,
        crowd=crowd,
        share=share,
        read=read,
        delivery=delivery,
        progress=progress,
    )
