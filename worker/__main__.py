"""Run `celery -A batchord.worker.app worker ARGS` as `python -P -m batchord.worker ARGS`.

So is `python -P -m batchord.worker flower ARGS` for Flower.

Celery puts the working directory in front of `sys.path` while it looks for the app, where a user's
`celery/` or `redis.py` would shadow a library. Here the libraries are imported first.
"""

import os
import signal
import sys
import threading
import time


def main() -> None:
    """Run one Celery worker, or Flower, until it is told to stop."""
    from batchord.ledger.core.working_directory import add_working_directory
    from batchord.worker.app import app

    add_working_directory()
    grace = os.environ.get("BATCHORD_SUPERVISED")
    if grace:
        threading.Thread(
            target=_end_with_parent, args=(float(grace),), name="parent", daemon=True
        ).start()
    arguments = sys.argv[1:]
    if arguments[:1] != ["flower"]:
        arguments = ["worker", *arguments]
    else:
        from batchord.ledger.settings import Settings
        from batchord.worker import flower

        flower.install(app, Settings())
    app.start(arguments)


def _end_with_parent(grace: float) -> None:
    """Shut down when the supervisor is gone, however it went: its end of stdin closes.

    After `grace` seconds what still runs is cut off, as the supervisor would have done.
    """
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os._exit(1)


if __name__ == "__main__":
    main()
