"""The bytes of uploaded files: in a folder, or behind a URL that fsspec knows.

A file appears whole or not at all, and is never changed. Its name is its id, so that nothing that a
caller says becomes a path.
"""

import io
import os
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, Protocol, cast

from batchord.chains.errors import BatchordError
from batchord.ledger.settings import Settings

_NAME: Final = re.compile(r"file-[0-9a-f]{24}")
#: Bytes that fsspec reads ahead.
_READ_AHEAD: Final = 2**20
#: The name of a file that shows that files can be written, and is deleted at once.
_PROBE: Final = "batchord-writes-here"


class FileStoreUnavailable(BatchordError):
    """The file store cannot be used; the message says what to change."""


class NewFile(Protocol):
    """A file that is being written, which nobody can read yet."""

    def write(self, data: bytes) -> None:
        """Append bytes."""

    def commit(self) -> None:
        """Make the file readable, once all of it is on the disk or at the object store."""

    def discard(self) -> None:
        """Leave nothing of it."""


class FileStore(Protocol):
    """Files by id. All methods block, as those of its files do; they raise FileStoreUnavailable."""

    def create(self, file_id: str) -> NewFile:
        """Begin a new file."""

    def open(self, file_id: str) -> IO[bytes]:
        """Open a file to be read from its beginning; it can seek. FileNotFoundError: it is gone."""

    def delete(self, file_id: str) -> None:
        """Delete a file, and what an unfinished upload of it has left; it may be gone already."""

    def check(self) -> None:
        """Raise FileStoreUnavailable unless files can be written."""


def file_store(settings: Settings) -> FileStore:
    """Return the file store that the settings name; nothing is opened yet."""
    url = settings.files_url
    if "://" in url and not url.startswith("file://"):
        return _Remote(url)
    return _Folder(Path(url.removeprefix("file://")))


def read_part(store: FileStore, file_id: str, offset: int, length: int) -> bytes:
    """Return bytes of a file.

    Raises:
        FileNotFoundError: the file is gone, or not here.
        EOFError: it ends before them.
    """
    with store.open(file_id) as file:
        file.seek(offset)
        found = file.read(length)
    if len(found) < length:
        raise EOFError(file_id)
    return found


def checked_name(file_id: str) -> str:
    """Return the id if it is an uploaded file's; ValueError: it is not, and must not be a path."""
    if not _NAME.fullmatch(file_id):
        raise ValueError("not the id of an uploaded file")
    return file_id


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, file_id: str) -> NewFile:
        self.check()
        return _FolderFile(self._folder / checked_name(file_id))

    def open(self, file_id: str) -> IO[bytes]:
        return (self._folder / checked_name(file_id)).open("rb")

    def delete(self, file_id: str) -> None:
        path = self._folder / checked_name(file_id)
        for each in (path, _part_of(path)):
            each.unlink(missing_ok=True)

    def check(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise FileStoreUnavailable(
                f"files cannot be kept in {self._folder} ({error.strerror}): set BATCHORD_FILES"
            ) from None
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise FileStoreUnavailable(
                f"files cannot be written to {self._folder}: mend its mode, or set BATCHORD_FILES"
            )


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


class _FolderFile:
    def __init__(self, path: Path) -> None:
        self._path, self._part = path, _part_of(path)
        self._file = os.fdopen(
            os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
        )

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def commit(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self._path)

    def discard(self) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)


class _Remote:
    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        #: The URL without a user and a password.
        self._shown = re.sub(r"//[^/@]*@", "//", self._url)
        self._found: tuple[Any, str] | None = None

    def create(self, file_id: str) -> NewFile:
        name = checked_name(file_id)
        with self._written() as (fs, root):
            return _RemoteFile(self, f"{root}/{name}", _begun(fs, root, name))

    def open(self, file_id: str) -> IO[bytes]:
        name = checked_name(file_id)
        with self._reached() as (fs, root):
            file = fs.open(f"{root}/{name}", "rb", block_size=_READ_AHEAD)
        return cast(IO[bytes], io.BufferedReader(_RemoteReader(self, file)))

    def delete(self, file_id: str) -> None:
        name = checked_name(file_id)
        with self._reached() as (fs, root), suppress(FileNotFoundError):
            fs.rm_file(f"{root}/{name}")

    def check(self) -> None:
        with self._written() as (fs, root):
            with _begun(fs, root, _PROBE) as file:
                file.write(b"ok")
            with suppress(FileNotFoundError):  # another server checks, too
                fs.rm_file(f"{root}/{_PROBE}")

    @contextmanager
    def _written(self) -> Iterator[tuple[Any, str]]:
        """Give the file system and the path to write to; a missing bucket is an error, too."""
        try:
            with self._reached() as there:
                yield there
        except FileNotFoundError:
            raise FileStoreUnavailable(
                f"BATCHORD_FILES: {self._shown} is not there: make the bucket, or the folder above"
            ) from None

    @contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        """Give the file system, and the path of the URL on it.

        Raises:
            FileStoreUnavailable: for each error of the file system's own but FileNotFoundError.
        """
        try:
            yield self._at()
        except (FileNotFoundError, BatchordError):
            raise
        except Exception as error:
            # They have no common class: botocore's, aiohttp's, paramiko's. Their text may name a
            # key.
            raise FileStoreUnavailable(
                f"BATCHORD_FILES: {self._shown} cannot be used now ({type(error).__name__}): check "
                "the address, and the credentials where this process runs"
            ) from error

    def _at(self) -> tuple[Any, str]:
        """Return the file system and the path of the URL; imported on first use."""
        if self._found is None:
            try:
                import fsspec

                self._found = fsspec.core.url_to_fs(self._url)
            except ImportError as error:
                raise FileStoreUnavailable(
                    f"BATCHORD_FILES needs a package that is not installed ({error}): "
                    "pip install 'batchord[serve]', and what fsspec names for this URL"
                ) from None
            except ValueError as error:
                raise FileStoreUnavailable(f"BATCHORD_FILES: {error}") from None
        return self._found


def _begun(fs: Any, root: str, name: str) -> Any:
    """Return a new file; its folder is made if the one above is there, and never a bucket."""
    try:
        return fs.open(f"{root}/{name}", "wb")
    except FileNotFoundError:
        if not fs.exists(posixpath.dirname(root)):
            raise
        fs.makedirs(root, exist_ok=True)
        return fs.open(f"{root}/{name}", "wb")


class _RemoteReader(io.RawIOBase):
    """A file that is read, whose errors are those of a file store."""

    def __init__(self, store: _Remote, file: Any) -> None:
        self._store, self._file = store, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._store._reached():
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._store._reached():
            return int(self._file.seek(offset, whence))

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class _RemoteFile:
    def __init__(self, store: _Remote, path: str, file: Any) -> None:
        self._store, self._path, self._file = store, path, file

    def write(self, data: bytes) -> None:
        with self._store._written():
            self._file.write(data)

    def commit(self) -> None:
        with self._store._written():
            self._file.close()

    def discard(self) -> None:
        # An object store that uploads in parts can forget them, and then cannot be closed; others
        # have a file by now.
        with suppress(Exception):
            self._file.discard()
        with suppress(Exception):
            self._file.close()
        with suppress(AttributeError):
            self._file.closed = True  # else it tries again as it is collected
        with self._store._reached() as (fs, _), suppress(FileNotFoundError):
            fs.rm_file(self._path)
