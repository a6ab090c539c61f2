"""Files behind URLs, which results are written to: whole or not at all."""

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Self, cast

from batchord.chains.errors import BatchordError
from batchord.producer.tables.file_kinds import file_part, file_system, is_url, local_name

#: Bytes that are uploaded at a time.
_CHUNK = 1_000_000


class NotWritten(BatchordError):
    """Results could not be written where they belong; what is in the ledger stays there."""


class RemoteFile:
    """A file of fsspec's, with the parts of a `Path` that writing results needs.

    Raises:
        BadTable: fsspec is missing, or what it needs for such URLs.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._system, self._path = file_system(url)

    def __str__(self) -> str:
        return self._url

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self._path.rpartition("/")[2]

    def with_name(self, name: str) -> Self:
        """Return the file beside this one that has another name."""
        part = file_part(self._url)
        return type(self)(self._url.replace(part, f"{part.rpartition('/')[0]}/{name}", 1))

    def absolute(self) -> Self:
        """Return the file itself: a URL depends on no folder."""
        return self

    def exists(self) -> bool:
        """Whether there is such a file.

        Raises:
            NotWritten: the file system does not say.
        """
        with self._explained():
            return bool(self._system.isfile(self._path))

    def is_same(self, url: str) -> bool:
        """Whether the URL leads to this file."""
        system, path = file_system(url)
        return bool(system == self._system and path == self._path)

    def check(self) -> None:
        """Raise NotWritten if it is known now that the file could not be written.

        Nothing is left behind. A user who may write there but not look is not refused.
        """
        if not self.name:
            raise NotWritten(f"{self} names no file: give it a name, as results.parquet")
        with self._explained():
            # In a file of another name: not all file systems leave alone what is only opened.
            probe = f"{self._path}.{secrets.token_hex(4)}.part"
            self._discard(self._opened(probe))
            with suppress(FileNotFoundError, PermissionError):
                self._system.rm_file(probe)
        with self._explained(), suppress(PermissionError):
            if self._system.isdir(self._path):
                raise NotWritten(f"{self} is a folder: name a file in it, as results.parquet")
            self._check_folder()

    def _check_folder(self) -> None:
        """Raise NotWritten unless the bucket is there, or the folder where paths have folders."""
        first, slash, _ = self._path.partition("/")
        folder = first if first else self._path.rpartition("/")[0] or "/"
        if slash and not self._system.exists(folder):
            raise NotWritten(f"cannot write {self}: there is no {folder!r}: make it first")

    @contextmanager
    def replacing(self) -> Iterator[IO[bytes]]:
        """Yield a file whose content is the remote file's at the end; unchanged after an exception.

        The content is on the disk until then, in a temporary file without a name.

        Raises:
            NotWritten: it could not be uploaded.
        """
        with tempfile.TemporaryFile() as local:
            yield cast(IO[bytes], local)
            local.seek(0)
            with self._explained():
                self._upload(local)

    def _upload(self, local: IO[bytes]) -> None:
        file = self._opened(self._path)
        try:
            shutil.copyfileobj(local, file, _CHUNK)
            file.close()
        except BaseException:
            self._discard(file)
            raise
        file.commit()

    def _opened(self, path: str) -> Any:
        """Open a file of which nothing is seen before its `commit`."""
        file = self._system.open(path, "wb", autocommit=False)
        if not hasattr(file, "commit"):
            self._discard(file)
            raise NotWritten(
                f"{self} cannot be written whole or not at all: name a file here, and copy it there"
            )
        return file

    def _discard(self, file: Any) -> None:
        # As fsspec's transactions do. What a file system objects to here, it has said before.
        for step in ("close", "discard"):
            with suppress(Exception):
                getattr(file, step)()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what a file system raises, which may be anything, into NotWritten."""
        try:
            yield
        except BatchordError:
            raise
        except NotImplementedError:
            raise NotWritten(
                f"{self} cannot be written to: name a file here, and copy it there"
            ) from None
        except Exception as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise NotWritten(f"cannot write {self}: {said}") from error


#: A file that results are written to.
Destination = Path | RemoteFile


def destination(name: str | Path) -> Destination:
    """Return the file that this path or URL names; `file://` URLs are paths.

    Raises:
        BadTable: fsspec is missing, or what it needs for such URLs.
    """
    if isinstance(name, str) and is_url(name):
        path = local_name(name)
        return RemoteFile(name) if path is None else Path(path)
    return Path(name)
