"""A plain chord under the kills that a batch is tried with: the judge must see what it loses."""

import json
import time
from functools import partial

from celery import chord, group

from chaos.crew import takes, wait
from chaos.ground import Ground, Run
from chaos.judge import judge_results
from chaos.plain_app import VARIABLE, create_app

#: Seconds without any sign of life after which it is given up. It is redelivered after five.
GIVEN_UP = 45.0


def plain_chord(ground: Ground) -> Run:
    """kill -9 of each of two workers, 20 times, while a chord runs."""
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
        chord(header, app=app)(app.signature("collect", args=(str(found),)))
        for _ in range(ground.times(20)):
            for place in (0, 1):
                wait(partial(takes, crew, place), timeout=20)
                time.sleep(ground.random.random() * 0.4)
                if found.exists():
                    break
                crew.kill(place)
                ground.strikes()
        began = time.monotonic()
        while not found.exists() and _quiet_for(ground) < GIVEN_UP:
            time.sleep(0.2)
        seconds = time.monotonic() - began
    app.close()
    results = json.loads(found.read_text()) if found.exists() else None
    return Run(
        fault="a plain chord: kill -9 of each worker",
        pool=ground.pool,
        struck=ground.struck,
        verdict=judge_results(results, total, ground.journal),
        seconds=seconds,
        meant_to_fail=True,
    )


def _quiet_for(ground: Ground) -> float:
    """Seconds since an item has written its last line."""
    return time.time() - ground.journal.stat().st_mtime if ground.journal.exists() else 0.0
