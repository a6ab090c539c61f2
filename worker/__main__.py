"""`python -P -m worker ARGS` is `celery -A worker.app worker ARGS`, imported in a safe order.

Celery puts the working directory in front of `sys.path` while it looks for the app, where a user's
own `worker/` or `chains/` would shadow ours. Here ours are imported first and the working directory
comes last: a user's modules are found and none shadows ours.
"""

import os
import sys


def main() -> None:
    """Run one Celery worker until it is told to stop."""
    from worker.app import app

    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    app.start(["worker", *sys.argv[1:]])


if __name__ == "__main__":
    main()
