"""`batchord serve` beside `batchord up`, with the key that was made on this machine.

`python -m batchord.local.api_server PORT` runs it until stdin closes; see `child_process`.
"""

import os
import signal
import threading

import click

from batchord.chains.errors import BatchordError
from batchord.chains.extras import MissingExtra
from batchord.ledger.settings import Settings
from batchord.local.child_process import Child, ChildError, Service, wait_for_parent

#: Seconds until it listens, on a busy machine.
_START_TIMEOUT = 60.0
#: Seconds for answers that are under way.
_GRACE = 12.0


class ApiServerError(BatchordError):
    """The server of OpenAI's Batch API cannot run here."""


class ApiServer(Service):
    """The server, for the time of a `with` block; it finds the Redis of `batchord up`."""

    def __init__(self, settings: Settings, *, port: int) -> None:
        self._settings = settings
        self._child = Child("batchord.local.api_server", [str(port)], start_timeout=_START_TIMEOUT)
        self.url = ""
        #: The key, if it was made now: it is to be shown.
        self.key: str | None = None

    def start(self) -> None:
        """Return when it listens; ApiServerError if it cannot run."""
        try:
            from batchord.gateway.keys import own_keys
        except ImportError as error:
            raise ApiServerError(str(MissingExtra(str(error.name), "--serve"))) from None
        _, self.key = own_keys(self._settings.home)
        try:
            self.url = self._child.start()["URL"]
        except ChildError as error:
            raise ApiServerError(f"the server of --serve did not start: {error}") from None

    def stop(self) -> None:
        """Leave no process."""
        self._child.stop(grace=_GRACE)


@click.command()
@click.argument("port", type=int)
def main(port: int) -> None:
    """Serve on loopback until stdin closes."""
    try:
        from batchord.gateway.keys import own_keys
        from batchord.gateway.server import serve
    except ImportError as error:
        raise click.ClickException(str(MissingExtra(str(error.name), "it"))) from None
    settings = Settings()
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    try:
        keys, _ = own_keys(settings.home)
        serve(settings, keys, host="127.0.0.1", port=port, on_start=_greet)
    except BatchordError as error:
        raise click.ClickException(str(error)) from None


def _greet(url: str) -> None:
    click.echo(f"URL={url}\n")


def _end_with_parent() -> None:
    wait_for_parent()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
