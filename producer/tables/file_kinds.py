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

#: Suffixes of formats and compressions that are neither read nor written here.
FOREIGN: Final = (
    *(".7z", ".avro", ".bz2", ".db", ".docx", ".html", ".lz4", ".md", ".npz", ".ods", ".orc"),
    *(".pdf", ".pickle", ".pkl", ".sqlite", ".tar", ".xls", ".xlsx", ".xml", ".xz", ".yaml"),
    *(".yml", ".zip"),
)

#: What the first bytes of a file say of it.
_MAGIC: Final = {
    b"PK\x03\x04": "a workbook of Excel or a zip archive: save the sheet as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "a workbook of Excel: save the sheet as CSV UTF-8",
    b"\xff\xfe": "UTF-16: convert it with iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "UTF-16: convert it with iconv -f UTF-16 -t UTF-8",
    b"\x1f\x8b": "packed by gzip: give it a name that ends in .gz",
    b"\x28\xb5\x2f\xfd": "packed by zstd: give it a name that ends in .zst",
    b"BZh": "packed by bzip2: unpack it, or pack it as .gz",
    b"\xfd7zXZ": "packed by xz: unpack it, or pack it as .gz",
    b"PAR1": "Parquet: give it a name that ends in .parquet, or say --input-format parquet",
    b"ARROW1": "Arrow: give it a name that ends in .arrow, or say --input-format arrow",
    b"%PDF": "a PDF: give a text or a table",
}

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


def what_else(begin: bytes) -> str:
    """Return what a file that is not UTF-8 is by its first bytes, and what to do."""
    found = (said for magic, said in _MAGIC.items() if begin.startswith(magic))
    text = "in another encoding: convert it, as with iconv -f WINDOWS-1252 -t UTF-8"
    return next(found, text)


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
