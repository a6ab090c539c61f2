"""The state that `batchord run` keeps under BATCHORD_HOME until its results are written.

A run is known by its input, its chain and its output file: the same three go on where they were.
Its folder, `runs/ID`, has a record of it, a lock that a living process holds, and the data of its
Valkey, unless a Redis was there already.
"""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from pydantic import Field, ValidationError

from batchord.chains.errors import BatchordError
from batchord.ledger.core.private_files import open_private, private_folder
from batchord.ledger.models import Frozen

_FOLDER: Final = "runs"
_RECORD: Final = "run.json"
_LOCK: Final = "lock"


class RunBusy(BatchordError):
    """Another process carries out the same run now."""


def _now() -> datetime:
    return datetime.now(UTC)


class RunRecord(Frozen):
    """Describe a run without its ledger. Times are UTC."""

    object: str = "run"
    #: `run_` and the digest of input, chain and output file.
    id: str
    chain: str
    input: str
    output: str
    #: Whether it has a Valkey of its own, in its folder; else it uses the Redis that was there.
    own_server: bool
    #: The idempotency key of its batch.
    key: str = Field(default_factory=lambda: f"run-{secrets.token_hex(16)}")
    batch_id: str | None = None
    #: Whether its batch may have been submitted: items may run before its id is known here.
    begun: bool = False
    #: The rows of its sample, of which some may be answered; None: there was no sample.
    sample: int | None = None
    total: int | None = None
    #: Items that had ended when this was written.
    done: int | None = None
    #: The batch's status once it has ended, or `sampled`: only the sample has run. None: neither.
    status: str | None = None
    created_at: datetime = Field(default_factory=_now)
    updated_at: datetime = Field(default_factory=_now)


class RunState:
    """The state of a run on disk. Use it in a `with` block, which holds its lock.

    Entering raises:
        RunBusy: another process holds it.
        PrivateFolderError: BATCHORD_HOME is not this user's.
    """

    def __init__(self, home: Path, new: RunRecord) -> None:
        self._home = home
        self.folder = home / _FOLDER / new.id
        self._new = new
        self.record = new
        #: Whether an earlier process has begun the run.
        self.resumed = False
        self._lock: IO[bytes] | None = None

    @property
    def data(self) -> Path | None:
        """The folder of the run's own server; None: it has none."""
        return self.folder / "data" if self.record.own_server else None

    def __enter__(self) -> Self:
        private_folder(self._home)
        private_folder(self.folder.parent)
        self._lock = _held(self.folder)
        earlier = _read(self.folder)
        if earlier is not None:
            self.record, self.resumed = earlier, True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        known = self.record
        if known.batch_id is None and known.sample is None and not known.begun:
            # Nothing has been submitted, let alone paid for.
            self.remove()
        if self._lock is not None:
            self._lock.close()

    def save(self, **changes: Any) -> None:
        """Record these changes; they are on the disk when it returns."""
        self.record = self.record.model_copy(update={**changes, "updated_at": _now()})
        part = self.folder / f"{_RECORD}.part"
        part.unlink(missing_ok=True)
        with open_private(part) as file:
            file.write(self.record.model_dump_json().encode())
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.folder / _RECORD)

    def forget(self) -> None:
        """Drop what an earlier process left of the run, and start over."""
        _empty(self.folder)
        self.record, self.resumed = self._new, False

    def remove(self) -> None:
        """Leave nothing of it."""
        _remove(self.folder)
        for folder in (self.folder.parent, self._home):
            with suppress(OSError):  # it holds something else
                folder.rmdir()


def unfinished(home: Path) -> list[RunRecord]:
    """Return the runs that are kept, the newest first."""
    records = [record for folder in _folders(home) if (record := _read(folder)) is not None]
    return sorted(records, key=lambda record: record.created_at, reverse=True)


def discard(home: Path, run_id: str) -> bool:
    """Drop a run; False if no run has this id.

    Raises:
        RunBusy: a process carries it out now.
    """
    for folder in _folders(home):
        if folder.name == run_id:
            with _held(folder):
                _remove(folder)
            return True
    return False


def discard_old(home: Path, seconds: float) -> None:
    """Drop runs that ended so long ago that their ledger has expired as well."""
    for record in unfinished(home):
        if record.status is not None and _now() - record.updated_at > timedelta(seconds=seconds):
            with suppress(RunBusy):
                discard(home, record.id)


def _folders(home: Path) -> Iterator[Path]:
    try:
        yield from (path for path in (home / _FOLDER).iterdir() if path.is_dir())
    except OSError:
        return


def _read(folder: Path) -> RunRecord | None:
    try:
        return RunRecord.model_validate_json((folder / _RECORD).read_bytes())
    except (OSError, ValidationError, json.JSONDecodeError):
        return None


def _held(folder: Path) -> IO[bytes]:
    """Take the lock of the run in this folder, which goes with our process however that ends."""
    while True:
        private_folder(folder)
        lock = open_private(folder / _LOCK)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(folder / _LOCK, lock):
                return lock
        except BlockingIOError:
            lock.close()
            raise RunBusy(
                "this very run is under way in another process: wait for it, or give another "
                "--output"
            ) from None
        lock.close()  # its holder has removed the run meanwhile


def _is_still(path: Path, lock: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(lock.fileno()))
    except FileNotFoundError:
        return False


def _empty(folder: Path) -> None:
    """Remove all but the lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _LOCK:
            path.unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    # The lock last: until then nobody takes what is half removed for a run.
    with suppress(FileNotFoundError):
        _empty(folder)
    shutil.rmtree(folder, ignore_errors=True)
