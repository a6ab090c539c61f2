"""The app that calls Celery: a chord whose body returns the ordered results."""

from typing import Any

from celery import chord
from celery.result import AsyncResult

from benchmarks.inputs import MODELS, WrongOutcome, check, inputs
from benchmarks.peers import celery_app
from benchmarks.talk import Answer, peak_rss, serve, spending


def header(kind: str, items: int, chunk: int) -> Any:
    """Return the chord's header: a task an item, or a task for each `chunk` of them."""
    if kind in MODELS:
        return [celery_app.chat.s((MODELS[kind], each)) for each in inputs(kind, items)]
    if chunk > 1:
        return celery_app.noop.chunks(((each,) for each in inputs(kind, items)), chunk).group()
    return [celery_app.noop.s(each) for each in inputs(kind, items)]


def start(kind: str, items: int, chunk: int) -> Any:
    """Publish a chord and return its body's result."""
    return chord(header(kind, items, chunk))(celery_app.ordered.s())


def collect(result: Any) -> list[Any]:
    """Wait for the body's result."""
    if celery_app.tuned:
        # The chord's own get() looks at every part again each time that one has ended.
        result = AsyncResult(result.id, app=celery_app.app)
    found: list[Any] = result.get(interval=0.005)
    return found


def outputs(results: list[Any], chunk: int) -> list[Any]:
    """Return the plain outputs; none may have failed."""
    if chunk > 1:
        results = [one for part in results for one in part]
    if not celery_app.tuned and not isinstance(results[0], dict):
        return results
    failed = [each for each in results if "error" in each]
    if failed:
        raise WrongOutcome(f"{len(failed)} failed, the first with {failed[0]}")
    return [each["output"] for each in results]


def run(kind: str, items: int, chunk: int = 1) -> Answer:
    """Run a chord and return when its ordered results are here."""
    with spending() as spent:
        results = collect(start(kind, items, chunk))
    check(kind, items, outputs(results, chunk))
    return spent.row(items=items)


def submit(kind: str, items: int, chunk: int = 1) -> Answer:
    """Publish a chord and no more; nobody works."""
    before = peak_rss()
    with spending() as spent:
        start(kind, items, chunk)
    return spent.row(items=items, rss_before=before, rss_peak=peak_rss())


def crowd(kind: str, items: int, behind: int, chunk: int = 1) -> Answer:
    """Publish many, then a few right behind them: how long do the few take?"""
    start(kind, items, chunk)
    in_front = _waiting()
    with spending() as spent:
        results = collect(start(kind, behind, chunk))
    check(kind, behind, outputs(results, chunk))
    return spent.row(items=items, behind=behind, in_front=in_front)


def _waiting() -> int:
    """Messages that nobody has acknowledged, by kombu's keys for the default queue."""
    client = celery_app.app.backend.client
    return int(client.llen("celery")) + int(client.hlen("unacked"))


if __name__ == "__main__":
    serve(run=run, submit=submit, crowd=crowd)
