"""A file of inputs: a path, a URL or a pipe, in any of the formats."""

import hashlib
import io
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, BinaryIO, Final, TextIO, cast

from batchord.chains.errors import BatchordError
from batchord.chains.tables.extra import BadTable
from batchord.io.tables import arrow_files, json_array, text_rows
from batchord.ledger.errors import SubmitRefused
from batchord.producer.tables.file_kinds import (
    TableFormat,
    decompressed,
    file_system,
    is_url,
    kind_of,
    local_name,
    what_else,
)
from batchord.producer.tables.remote_file import Destination, RemoteFile

#: Bytes that are read at a time.
_CHUNK: Final = 1_000_000
#: Formats that are read by seeking in the file.
_SOUGHT: Final = ("parquet", "arrow")


class InputFile:
    """The values of a file, each with the number of its line (or row), one by one.

    `name` is a path or a URL; with a `stream` it only tells the format.
    Iterating again reads the file again; a pipe is read only once, unless `keep` was called before.
    What the name does not say (as that of stdin) is JSON lines, unless `format` is set.

    Raises, as it is iterated:
        SubmitRefused: the content does not fit the format; the message names the line.
    """

    def __init__(self, name: str, stream: BinaryIO | None = None) -> None:
        self.name = (local_name(name) if is_url(name) else None) or name
        kind = kind_of(self.name)
        self.format: TableFormat = kind.format or "jsonl"
        self._compression = kind.compression
        #: The column that names each row; None: they have no names of this kind.
        self.id_column: str | None = None
        self._stream = stream

    @property
    def place(self) -> str:
        """The word for what numbers count: lines, or rows."""
        return "row" if self.format in _SOUGHT else "line"

    def keep(self) -> None:
        """Copy a pipe into a temporary file without a name, so that it can be read again."""
        if self._stream is not None and not self._stream.seekable():
            self._stream = _copied(self._stream)

    def is_at(self, path: Destination) -> bool:
        """Whether the path leads to this file, perhaps by another name."""
        if isinstance(path, RemoteFile):
            return self._stream is None and is_url(self.name) and path.is_same(self.name)
        try:
            file = self.name if self._stream is None else self._stream.fileno()
            return os.path.samestat(os.stat(file), path.stat())
        except (OSError, ValueError):  # a URL, bytes in memory, or no file yet
            return False

    def close(self) -> None:
        """Close what `keep` has copied."""
        if self._stream is not None:
            self._stream.close()

    def digest(self) -> str:
        """Return the SHA-256 of the content and of how it is read."""
        self.keep()
        with self._opened() as raw:
            content = hashlib.sha256()
            while chunk := raw.read(_CHUNK):
                content.update(chunk)
        content.update(f"{self.format} {self._compression} {self.id_column}".encode())
        return content.hexdigest()

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        with self._opened() as raw:
            try:
                yield from self._values(decompressed(raw, self._compression))
            except UnicodeDecodeError as error:
                what = what_else(error.object)
                raise SubmitRefused(f"the input is not UTF-8 ({error}) but {what}") from None
            except BadTable as error:
                raise SubmitRefused(str(error)) from None
            except (EOFError, OSError, zlib.error) as error:
                raise SubmitRefused(f"the input cannot be read: {error}") from None

    def _values(self, stream: BinaryIO) -> Iterator[tuple[int, Any]]:
        if self.format in _SOUGHT:
            yield from self._sought(stream)
            return
        # Line breaks within cells of CSV stay as they are.
        newline = "" if self.format in ("csv", "tsv") else None
        # Some editors begin a file with a byte order mark: it is passed over.
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline=newline)
        try:
            yield from _text_values(self.format, text)
        finally:
            with suppress(ValueError):  # the stream is closed
                text.detach()  # else it would close the stream

    def _sought(self, stream: BinaryIO) -> Iterator[tuple[int, Any]]:
        read, name = (
            (arrow_files.parquet_rows, "Parquet")
            if self.format == "parquet"
            else (arrow_files.arrow_rows, "Arrow")
        )
        with ExitStack() as stack:
            if self._compression is not None or not stream.seekable():
                stream = stack.enter_context(_copied(stream))
            try:
                yield from read(stream)
            except ValueError as error:  # pyarrow's ArrowInvalid
                raise arrow_files.refused(error, name) from None

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        if self._stream is not None:
            if self._stream.seekable():
                with io.BufferedReader(_View(self._stream)) as view:
                    yield view
            else:
                yield self._stream
            return
        with _refusing(self.name), _open(self.name) as file:
            yield file


def _text_values(format_: TableFormat, text: TextIO) -> Iterator[tuple[int, Any]]:
    match format_:
        case "csv":
            return text_rows.csv_rows(text)
        case "tsv":
            return text_rows.csv_rows(text, "\t")
        case "json":
            return json_array.array_values(text)
        case "txt":
            return text_rows.text_lines(text)
        case _:
            return text_rows.json_lines(text)


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Turn what a file system raises, which may be anything behind a URL, into SubmitRefused."""
    try:
        yield
    except BadTable as error:
        raise SubmitRefused(str(error)) from None
    except BatchordError:
        raise
    except FileNotFoundError:
        raise SubmitRefused(f"cannot read {name!r}: there is no such file") from None
    except OSError as error:
        raise SubmitRefused(f"cannot read {name!r}: {error.strerror or error}") from None
    except Exception as error:
        if not is_url(name):
            raise
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise SubmitRefused(f"cannot read {name!r}: {said}") from error


def _open(name: str) -> BinaryIO:
    if is_url(name):
        system, path = file_system(name)
        return cast(BinaryIO, system.open(path, "rb"))
    return open(name, "rb")


class _View(io.RawIOBase):
    """A file from its beginning, with a place of its own: other readers of it do not move that."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._place = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the place, and return it."""
        if whence != io.SEEK_END:
            self._place = offset + (self._place if whence == io.SEEK_CUR else 0)
        else:
            self._place = self._file.seek(offset, whence)
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read from the place on; 0 at the end."""
        self._file.seek(self._place)
        found = self._file.read(len(buffer))
        buffer[: len(found)] = found
        self._place += len(found)
        return len(found)


def _copied(stream: BinaryIO) -> BinaryIO:
    copy = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
    shutil.copyfileobj(stream, copy)
    copy.seek(0)
    return copy
