"""A plain chord under faults that a batch is tried with: the judge must see what it loses."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from celery import chord, group

from chaos.ground import Ground, Run
from chaos.plain_app import VARIABLE, create_app
from tests.support.crew import Crew, takes, wait
from tests.support.judge import judge_results

#: Seconds without any sign of life after which it is given up. It is redelivered after five.
GIVEN_UP = 45.0


def plain_chord(ground: Ground) -> Run:
    """kill -9 of each of two workers, 20 times, while a chord runs."""
    return _tried(ground, "a plain chord: kill -9 of each worker", _kill_each)


def revoked_plain_chord(ground: Ground) -> Run:
    """Every id of a running chord is revoked, as of a batch."""
    return _tried(ground, "a plain chord: every task id revoked", _revoke_all)


def _kill_each(ground: Ground, crew: Crew, found: Path, chord_: Any) -> None:
    for _ in range(ground.times(20)):
        for place in (0, 1):
            wait(partial(takes, crew, place), timeout=20)
            time.sleep(ground.random.random() * 0.4)
            if found.exists():
                break
            crew.kill(place)
            ground.strikes()


def _revoke_all(ground: Ground, crew: Crew, found: Path, chord_: Any) -> None:
    wait(lambda: takes(crew, 0) and takes(crew, 1), timeout=60)
    ids = [chord_.id, *(each.id for each in chord_.parent.results)]
    chord_.app.control.revoke(ids, reply=True, timeout=2)
    ground.strikes()


def _tried(ground: Ground, fault: str, strike: Callable[[Ground, Crew, Path, Any], None]) -> Run:
    """Run a chord, have the fault strike it, and judge what is left."""
    total = ground.count(1000)
    found = ground.folder / "results.json"
    app = create_app(ground.proxy.url)
    command = ("celery", "-A", "chaos.plain_app", "worker", "-P", "prefork", "-c", "8")
    quiet = ("-l", "INFO", "--without-gossip", "--without-mingle")
    with ground.crew(2, 8, command=(*command, *quiet), env={VARIABLE: ground.proxy.url}) as crew:
        wait(lambda: crew.ready, timeout=60)
        header = group(
            app.signature("item", args=(index, str(ground.journal), 0.3)) for index in range(total)
        )
        chord_ = chord(header, app=app)(app.signature("collect", args=(str(found),)))
        strike(ground, crew, found, chord_)
        began = time.monotonic()
        while not found.exists() and _quiet_for(ground) < GIVEN_UP:
            time.sleep(0.2)
        seconds = time.monotonic() - began
    app.close()
    results = json.loads(found.read_text()) if found.exists() else None
    return Run(
        fault=fault,
        pool=ground.pool,
        struck=ground.struck,
        verdict=judge_results(results, total, ground.journal),
        seconds=seconds,
        meant_to_fail=True,
    )


def _quiet_for(ground: Ground) -> float:
    """Seconds since an item has written its last line."""
    return time.time() - ground.journal.stat().st_mtime if ground.journal.exists() else 0.0
