"""The app that calls dramatiq: a group and its ordered results, or only the end of all items."""
# mypy: disable-error-code="import-not-found"

import os
import time
from pathlib import Path
from typing import Any

from dramatiq import group

from benchmarks.inputs import MODELS, WrongOutcome, check, inputs
from benchmarks.peers import dramatiq_app
from benchmarks.talk import Answer, serve, spending

#: Milliseconds for all results; dramatiq's own default is ten seconds.
PATIENCE = 900_000


def start(kind: str, items: int) -> Any:
    """Send a message an item and return their group."""
    if kind in MODELS:
        messages = [dramatiq_app.chat.message(MODELS[kind], each) for each in inputs(kind, items)]
    else:
        messages = [dramatiq_app.noop.message(each) for each in inputs(kind, items)]
    return group(messages).run()


def run(kind: str, items: int) -> Answer:
    """Run a group and return when its ordered results are here, or when all have ended."""
    if not dramatiq_app.kept:
        return _run_without_results(kind, items)
    with spending() as spent:
        results = list(start(kind, items).get_results(block=True, timeout=PATIENCE))
    check(kind, items, results)
    return spent.row(items=items)


def _run_without_results(kind: str, items: int) -> Answer:
    before = len(_tallied())
    with spending() as spent:
        start(kind, items)
        # An acknowledged message leaves this hash; `broker.join` only sees what no one has taken.
        while _waiting():
            time.sleep(0.005)
    ran = _tallied()
    if len(ran) != before + items or not set(ran) >= set(inputs(kind, items)):
        raise WrongOutcome(f"{len(ran) - before} of {items} ran")
    return spent.row(items=items)


def _waiting() -> int:
    """Messages that nobody has acknowledged."""
    return int(dramatiq_app.broker.client.hlen("dramatiq:default.msgs"))


def _tallied() -> list[int]:
    files = Path(os.environ["BENCH_TALLY"]).iterdir()
    return [int(line) for file in files for line in file.read_text().splitlines()]


def crowd(kind: str, items: int, behind: int) -> Answer:
    """Send many, then a few right behind them: how long do the few take?"""
    start(kind, items)
    in_front = _waiting()
    with spending() as spent:
        results = list(start(kind, behind).get_results(block=True, timeout=PATIENCE))
    check(kind, behind, results)
    return spent.row(items=items, behind=behind, in_front=in_front)


if __name__ == "__main__":
    serve(run=run, crowd=crowd)
