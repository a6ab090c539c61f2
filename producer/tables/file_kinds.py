"""Formats of files by their names, compressed files, and files behind a URL."""

import gzip
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any, BinaryIO, Final, Literal, NamedTuple, cast
from urllib.parse import unquote

from batchord.chains.tables.extra import BadTable, library

TableFormat = Literal["csv", "tsv", "json", "jsonl", "txt", "parquet", "arrow"]
Compression = Literal["gzip", "zstd"]

#: Formats by the suffix of a file's name.
SUFFIXES: Final[dict[str, TableFormat]] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "txt",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
COMPRESSIONS: Final[dict[str, Compression]] = {".gz": "gzip", ".zst": "zstd"}

#: A scheme, and before it those that fsspec chains to it: `simplecache::s3://`.
_SCHEME: Final = r"[A-Za-z][A-Za-z0-9+.-]*"
_URL: Final = re.compile(rf"(?:{_SCHEME}::)*{_SCHEME}://")


class FileKind(NamedTuple):
    """A file's format, None if its name says none, and its compression."""

    format: TableFormat | None
    compression: Compression | None


def kind_of(name: str) -> FileKind:
    """Return what a file's name or URL says of it: `tickets.csv.gz` is CSV, compressed by gzip."""
    if is_url(name):
        name = re.split("[?#]", file_part(name))[0]
    path = PurePosixPath(name.lower())
    compression = COMPRESSIONS.get(path.suffix)
    if compression is not None:
        path = path.with_suffix("")
    return FileKind(SUFFIXES.get(path.suffix), compression)


def is_url(name: str) -> bool:
    """Whether this is a URL, as `s3://bucket/tickets.csv`, or several of fsspec's, chained."""
    return _URL.match(name) is not None


def local_name(url: str) -> str | None:
    """Return the path of a URL of this machine's files (`file://`, `local://`); else None."""
    scheme, _, path = url.partition("://")
    if scheme not in ("file", "local") or "::" in url:
        return None
    return unquote(path.removeprefix("localhost") if path.startswith("localhost/") else path)


def file_part(url: str) -> str:
    """Return the link of a URL that names the file: the first one of a chain that has a path."""
    return next(part for part in url.split("::") if "://" in part)


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system of fsspec that a URL names, and the path in it.

    Raises:
        BadTable: fsspec is missing, or what it needs for such URLs.
    """
    fsspec = library("fsspec", f"the URL {url}")
    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise BadTable(f"{url}: {error}") from None
    return system, path


def decompressed(stream: BinaryIO, compression: Compression | None) -> BinaryIO:
    """Return the stream as it was before it was compressed."""
    if compression == "gzip":
        return cast(BinaryIO, gzip.GzipFile(fileobj=stream))
    if compression == "zstd":
        pa = library("pyarrow", "a file called .zst")
        return cast(BinaryIO, pa.CompressedInputStream(_Unclosed(stream), "zstd"))
    return stream


@contextmanager
def compressing(file: IO[bytes], compression: Compression | None) -> Iterator[IO[bytes]]:
    """Yield a file whose bytes are compressed into `file`."""
    if compression == "gzip":
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
            yield cast(IO[bytes], packed)
    elif compression == "zstd":
        pa = library("pyarrow", "a file called .zst")
        with pa.CompressedOutputStream(pa.PythonFile(_Unclosed(file), "w"), "zstd") as packed:
            yield packed
    else:
        yield file


class _Unclosed(io.RawIOBase):
    """A file that stays open when pyarrow closes it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        """Return whether it can be read."""
        return self._file.readable()

    def writable(self) -> bool:
        """Return whether it can be written to."""
        return self._file.writable()

    def readinto(self, buffer: Any) -> int:
        """Read some bytes; 0 at the end."""
        found = self._file.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def write(self, data: Any) -> int:
        """Write all bytes."""
        return self._file.write(data)
