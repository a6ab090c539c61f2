"""Check the workers of this machine: `python -P -m batchord.worker.health`, exit code 0 if well.

A process answers through the broker on a thread of its own, which says nothing of the event loop
that its items run on. So the answer to a ping tells of the loop too, and pool children tell the
ledger how late theirs are.
"""

import socket
import sys
from typing import Any, Final

from batchord.chains.errors import BatchordError
from batchord.ledger.storage.fleet_store import FleetStore
from batchord.worker.control import ILL

#: Seconds that a process has to answer.
ANSWERS: Final = 10.0


def problems(app: Any, store: Any) -> list[str]:
    """Return what is wrong with the workers of this host, each in a line; none if they are well."""
    host = socket.gethostname()
    inspect = app.control.inspect(pattern=f"*@{host}", matcher="glob", limit=1, timeout=ANSWERS)
    replies = inspect.ping() or {}
    if not replies:
        return ["no worker process answers"]
    found = [f"{name}: {reply}" for name, reply in replies.items() if "ok" not in reply]
    loops = FleetStore(store).read().lags.items()
    ours = [(name, lag) for name, lag in loops if name.startswith(f"{host}:") and lag > ILL]
    return [*found, *(f"{name}: event loop blocked for {lag:.1f} s" for name, lag in ours)]


def main() -> None:
    """Print what is wrong, if anything is."""
    from batchord.ledger.settings import Settings
    from batchord.ledger.storage.batch_store import BatchStore
    from batchord.worker.app import app

    try:
        found = problems(app, BatchStore(Settings()))
    except BatchordError as error:
        found = [str(error)]
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
