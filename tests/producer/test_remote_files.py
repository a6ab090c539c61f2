"""Files behind URLs: they appear whole or not at all, and what cannot be written is said before."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from batchord.chains.tables.extra import BadTable
from batchord.producer.tables.atomic_file import replacing
from batchord.producer.tables.file_kinds import kind_of
from batchord.producer.tables.remote_file import NotWritten, RemoteFile, destination


@pytest.fixture
def memory() -> Iterator[Any]:
    """A file system in memory with one folder and one file in it."""
    system = fsspec.filesystem("memory")
    system.mkdir("/bucket")
    system.pipe("/bucket/there.csv", b"before")
    yield system
    system.rm("/bucket", recursive=True)


def test_a_file_at_a_url_is_replaced_at_the_end(memory: Any) -> None:
    with replacing(destination("memory://bucket/there.csv")) as file:
        file.write(b"a longer text")
        file.seek(0)
        file.truncate()
        file.write(b"after")
        assert memory.cat("/bucket/there.csv") == b"before"
    assert memory.cat("/bucket/there.csv") == b"after"


def _broken(file: IO[bytes]) -> None:
    file.write(b"half of it")
    raise KeyboardInterrupt


def _full(file: IO[bytes]) -> None:
    file.write(b"half of it")
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("write", [_broken, _full])
def test_after_an_exception_it_is_as_it_was(memory: Any, write: Any) -> None:
    with (
        pytest.raises((KeyboardInterrupt, OSError)),
        replacing(RemoteFile("memory://bucket/there.csv")) as file,
    ):
        write(file)
    assert memory.cat("/bucket/there.csv") == b"before"


class Cut(LocalFileSystem):  # type: ignore[misc]
    """Files of this machine, on a line that is cut in the middle of an upload."""

    protocol = "cut"

    def _open(self, path: str, mode: str = "rb", **given: Any) -> Any:
        file = super()._open(path, mode, **given)
        written = file.write

        def write(data: bytes) -> None:
            written(data[:10])
            raise ConnectionResetError("the line was cut")

        file.write = write
        return file


def test_an_upload_that_is_cut_leaves_what_was_there(tmp_path: Path) -> None:
    fsspec.register_implementation("cut", Cut, clobber=True)
    there = tmp_path / "there.csv"
    there.write_text("before")
    with (
        pytest.raises(NotWritten, match=r"cannot write cut://.*: ConnectionResetError: the line"),
        replacing(RemoteFile(f"cut://{there}")) as file,
    ):
        file.write(b"after" * 100)
    assert there.read_text() == "before"
    assert list(tmp_path.iterdir()) == [there]


#: URLs that cannot be written, and what is said before any work.
REFUSED = {
    "no package": ("s3://bucket/a.csv", "s3fs"),
    "no such scheme": ("s4://bucket/a.csv", "s4"),
    "reading only": ("https://127.0.0.1:9/a.csv", "cannot be written to: .* copy it there"),
    "no file": ("memory://bucket/", "a folder|names no file"),
    "a folder": ("memory://bucket", "is a folder: name a file in it"),
    "no such folder": ("memory://absent/a.csv", "there is no '/absent': make it first"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_written_is_said_before(memory: Any, name: str) -> None:
    url, said = REFUSED[name]
    before = memory.find("/", withdirs=True)
    with pytest.raises((BadTable, NotWritten), match=said):
        RemoteFile(url).check()
    assert memory.find("/", withdirs=True) == before


def test_a_check_leaves_nothing_behind(memory: Any) -> None:
    for name in ("there.csv", "new.csv"):
        RemoteFile(f"memory://bucket/{name}").check()
    assert memory.find("/bucket") == ["/bucket/there.csv"]
    assert memory.cat("/bucket/there.csv") == b"before"


#: Names, and what they are: a path, or the name of a remote file and the one beside it.
NAMES = {
    "answers.csv": Path("answers.csv"),
    "file:///tmp/a%20b.csv": Path("/tmp/a b.csv"),
    "file://localhost/tmp/a.csv": Path("/tmp/a.csv"),
    "local:///tmp/a.csv": Path("/tmp/a.csv"),
    "memory://bucket/a.csv": "memory://bucket/b.csv",
    "dir://a.csv::file:///tmp/a.csv": "dir://b.csv::file:///tmp/a.csv",
    "dir://x/a.csv::file:///tmp": "dir://x/b.csv::file:///tmp",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_path_or_a_url(name: str) -> None:
    found, expected = destination(name), NAMES[name]
    if isinstance(expected, Path):
        assert found == expected
    else:
        assert isinstance(found, RemoteFile)
        assert (found.name, str(found.with_name("b.csv"))) == ("a.csv", expected)
        assert str(found.absolute()) == name


#: URLs whose name says what they are.
KINDS = {
    "s3://bucket/a.csv.gz": ("csv", "gzip"),
    "https://host/a.csv?token=x.json": ("csv", None),
    "simplecache::s3://bucket/a.parquet": ("parquet", None),
    "zip://a.tsv::s3://bucket/a.zip": ("tsv", None),
    "what?.csv": ("csv", None),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_name_of_a_url_says_its_format(name: str) -> None:
    assert kind_of(name) == KINDS[name]
