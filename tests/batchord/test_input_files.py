"""Files of inputs: the rows of each format, and one line that names the place of what is wrong."""

import gzip
import io
import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from batchord.commands.options import input_lines
from batchord.io.input_file import InputFile
from batchord.io.tables.json_array import array_values
from batchord.ledger.errors import SubmitRefused
from tests.support.cli_harness import CHAINS, Shell

ROWS = [{"id": "007", "text": 'a "b"\n,c'}, {"id": None, "text": "ü"}]
CSV = 'id,text\n007,"a ""b""\n,c"\n\n,ü\n'


def _zst(content: bytes) -> bytes:
    packed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return packed


def _arrow(write: Callable[[Any, Any], Any]) -> bytes:
    file = io.BytesIO()
    write(pa.Table.from_pylist(ROWS), file)
    return file.getvalue()


def _ipc(maker: Any) -> bytes:
    def write(table: Any, file: Any) -> None:
        with maker(file, table.schema) as writer:
            writer.write_table(table)

    return _arrow(write)


PARQUET = _arrow(lambda table, file: pyarrow.parquet.write_table(table, file))

#: Names of files, their content, and the values in them with their lines.
FILES: list[tuple[str, bytes, list[tuple[int, Any]]]] = [
    ("in.csv", CSV.encode(), [(2, ROWS[0]), (5, ROWS[1])]),
    ("bom.csv", b"\xef\xbb\xbf" + CSV.encode(), [(2, ROWS[0]), (5, ROWS[1])]),
    ("semicolons.csv", b"id;text\n1;a,b\n", [(2, {"id": "1", "text": "a,b"})]),
    ("tabs.csv", b"id\ttext\n1\ta,b\n", [(2, {"id": "1", "text": "a,b"})]),
    ("bars.csv", b"id|text\n1|a,b\n", [(2, {"id": "1", "text": "a,b"})]),
    ("quoted.csv", b'"id, no";text\n1;a,b\n', [(2, {"id, no": "1", "text": "a,b"})]),
    ("excel.csv", b"sep=;\r\nid;text\r\n1;a\r\n", [(3, {"id": "1", "text": "a"})]),
    ("spaces.csv", b" id , text\n1, a\n", [(2, {"id": "1", "text": " a"})]),
    ("gaps.csv", b"\n \nid,text\n  \n\n1,a\n\n", [(6, {"id": "1", "text": "a"})]),
    ("mac.csv", b"id,text\r1,a\r", [(2, {"id": "1", "text": "a"})]),
    ("alone.csv", b'text\na\n""\n', [(2, {"text": "a"}), (3, {"text": None})]),
    ("index.csv", b",a\n0,x\n", [(2, {"column_1": "0", "a": "x"})]),
    ("in.CSV.gz", gzip.compress(CSV.encode()), [(2, ROWS[0]), (5, ROWS[1])]),
    ("in.csv.zst", _zst(CSV.encode()), [(2, ROWS[0]), (5, ROWS[1])]),
    ("in.tsv", b"id\ttext\r\n1\ta,b\r\n", [(2, {"id": "1", "text": "a,b"})]),
    ("in.json", json.dumps(ROWS, indent=1).encode(), [(2, ROWS[0]), (6, ROWS[1])]),
    ("a.json", b" [ 1,2.5 , -1\n,null, [ ] ]\n", [(1, 1), (1, 2.5), (1, -1), (2, None), (2, [])]),
    ("empty.json", b"[]", []),
    ("in.jsonl", b'{"a": 1}\n\n"x"\n', [(1, {"a": 1}), (3, "x")]),
    ("in.ndjson", b"1\n", [(1, 1)]),
    ("in", b"1\n", [(1, 1)]),
    ("in.txt", b"one\r\n\n two\n", [(1, "one"), (3, " two")]),
    ("in.parquet", PARQUET, [(1, ROWS[0]), (2, ROWS[1])]),
    ("in.parquet.gz", gzip.compress(PARQUET), [(1, ROWS[0]), (2, ROWS[1])]),
    ("in.arrow", _ipc(pa.ipc.new_file), [(1, ROWS[0]), (2, ROWS[1])]),
    ("in.feather", _ipc(pa.ipc.new_stream), [(1, ROWS[0]), (2, ROWS[1])]),
]


@pytest.mark.parametrize(
    ("name", "content", "values"), FILES, ids=[f"{i} {f[0]}" for i, f in enumerate(FILES)]
)
def test_a_file_gives_the_values_of_its_format(
    tmp_path: Path, name: str, content: bytes, values: list[tuple[int, Any]]
) -> None:
    (tmp_path / name).write_bytes(content)
    memory = fsspec.filesystem("memory")
    memory.pipe(f"/{tmp_path.name}/{name}", content)

    read = InputFile(str(tmp_path / name))
    pipe = InputFile(name, _Pipe(content))
    pipe.keep()

    assert list(read) == values
    assert list(read) == values, "a second time as well"
    assert (list(pipe), list(pipe)) == (values, values)
    pipe.close()
    assert list(InputFile(f"memory://{tmp_path.name}/{name}")) == values
    assert list(InputFile((tmp_path / name).as_uri())) == values


def test_readers_of_a_kept_pipe_do_not_disturb_each_other() -> None:
    lines = list(enumerate(range(50_000), 1))
    file = InputFile("in.jsonl", _Pipe("".join(f"{value}\n" for _, value in lines).encode()))
    file.keep()

    first = iter(file)
    head = next(first)
    file.digest()

    assert list(file) == lines
    assert [head, *first] == lines
    file.close()


class _Pipe(io.BytesIO):
    """Bytes that can be read once."""

    def seekable(self) -> bool:
        return False


#: Names of files, their content, and what the one line says of it.
WRONG: list[tuple[str, bytes, str]] = [
    ("in.csv", b'{"a": 1}\n', r"line 1 is JSON, not CSV: .*\.jsonl"),
    ("in.csv", b"a,b\n1,2\n3\n", "line 3 has 1 cells, and the first line has 2"),
    ("in.csv", b'a,b\n"1\n2",3\n4,5,6\n', "line 4 has 3 cells"),
    ("in.csv", b'a,b\n1,"2\n', "row that begins on line 2 is not CSV"),
    ("in.csv", b"a,a\n1,2\n", "line 1: two columns are called 'a'"),
    ("in.csv", b"\na, a\n1,2\n", "line 2: two columns are called 'a'"),
    ("in.csv", b"a;b;c, d\n1;2;3\n", "line 2 has 1 cells, .* with ',' between them"),
    ("in.csv", "a\nü\n".encode("latin-1"), "not UTF-8 .* iconv -f WINDOWS-1252"),
    ("in.csv", "a\nü\n".encode("utf-16"), "not UTF-8 .* iconv -f UTF-16"),
    ("in.csv", gzip.compress(CSV.encode()), r"not UTF-8 .* ends in \.gz"),
    ("in.xlsx", b"PK\x03\x04\x14\x00\x06\x00\x08\x00\xff", "workbook of Excel .* as CSV UTF-8"),
    ("in.csv", PARQUET, "not UTF-8|not CSV"),
    ("in.csv.gz", CSV.encode(), "cannot be read: Not a gzipped file"),
    ("in.csv.gz", gzip.compress(CSV.encode() * 99)[:-20], "cannot be read: "),
    ("in.csv.zst", CSV.encode(), "cannot be read: ZSTD"),
    ("in.json", b'{"a": 1}\n', r"line 1 is not the beginning of a JSON array: .*\.jsonl"),
    ("in.json", b"", "line 1 is not the beginning of a JSON array"),
    ("in.json", b"[1,\n2,\n{]", "line 3 is not JSON"),
    ("in.json", b"[1\n2]", "line 2 is not JSON: expected a comma"),
    ("in.json", b"[1,\n2", "line 2 is not JSON"),
    ("in.json", b"[1]\n[2]", "line 2: there is more behind the end"),
    ("in.jsonl", b"1\nid,text\n", "line 2 is not JSON"),
    ("in.parquet", CSV.encode(), "not Parquet"),
    ("in.arrow", CSV.encode(), "not Arrow"),
    ("s4://bucket/in.csv", b"", "s4"),
    ("s3://bucket/in.csv", b"", "s3fs"),
    ("memory://absent/in.csv", b"", "cannot read 'memory://absent/in.csv': there is no such file"),
    ("http://127.0.0.1:9/in.csv", b"", "cannot read 'http://127.0.0.1:9/in.csv': "),
    ("broken://in.csv", b"", "cannot read 'broken://in.csv': KeyError: 'no credentials'"),
    ("simplecache::broken://in.csv", b"", "cannot read 'simplecache::broken://in.csv': "),
]


class Broken(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """Raises what no file system of the standard library does."""

    protocol = "broken"

    def _open(self, path: str, mode: str = "rb", **given: Any) -> Any:
        raise KeyError("no credentials")

    def info(self, path: str, **given: Any) -> Any:
        raise KeyError("no credentials")


@pytest.mark.parametrize(
    ("name", "content", "said"), WRONG, ids=[f"{i} {w[0]}" for i, w in enumerate(WRONG)]
)
def test_wrong_content_is_refused_with_its_line(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    fsspec.register_implementation("broken", Broken, clobber=True)
    path = name if "://" in name else str(tmp_path / name)
    if "://" not in name:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(SubmitRefused, match=said):
        list(InputFile(path))


def test_a_json_array_is_read_in_pieces_whatever_is_cut_where() -> None:
    values = [{"text": "x" * n, "list": [n, [n]]} for n in range(0, 200_000, 9_973)] + [1, 23, "a"]
    text = json.dumps(values, indent=2)

    class Slow(io.StringIO):
        def read(self, size: int | None = -1) -> str:
            return super().read(min(size or 7, 7) if self.tell() < 2_000 else 4_001)

    assert [value for _, value in array_values(Slow(text))] == values


@pytest.mark.parametrize("name", ["in.csv", "in.json", "in.jsonl", "in.txt"])
def test_a_long_file_is_not_held(tmp_path: Path, name: str) -> None:
    line = "x" * 1_000
    with (tmp_path / name).open("w") as file:
        file.write({"in.csv": "a\n", "in.json": "["}.get(name, ""))
        for _ in range(20_000):
            file.write(
                {"in.json": f'"{line}",\n', "in.jsonl": f'"{line}"\n'}.get(name, f"{line}\n")
            )
        file.write('"end"]\n' if name == "in.json" else "")
    tracemalloc.start()
    try:
        count = sum(1 for _ in InputFile(str(tmp_path / name)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count >= 20_000
    assert peak < 4_000_000, "of 20 MB"


#: Rows, and what is said of their ids.
IDS: list[tuple[list[Any], str]] = [
    (
        [{"id": "a"}, {"id": "b"}, {"id": "a"}],
        "line 3: the id 'a' in column 'id' is that of line 1",
    ),
    ([{"id": 1}, {"id": "1"}], "line 2: the id '1' in column 'id' is that of line 1"),
    ([{"id": "a"}, {"id": None}], "line 2: the column 'id' is empty"),
    ([{"id": "a"}, {"id": ""}], "line 2: the column 'id' is empty"),
    ([{"id": "a"}, {"name": "b"}], r"line 2 has no column 'id' for --id \(it has: name\)"),
    ([{"id": "a"}, "text"], "line 2 has no column 'id'"),
    ([{"id": 1.5}], "line 1: the column 'id' has no text"),
    ([{"id": "x" * 513}], "line 1: the column 'id' has no text"),
]


@pytest.mark.parametrize(("rows", "said"), IDS, ids=[said[:40] for _, said in IDS])
def test_rows_without_names_of_their_own_are_refused(
    tmp_path: Path, rows: list[Any], said: str
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = InputFile(str(path))
    source.id_column = "id"

    with pytest.raises(SubmitRefused, match=said):
        input_lines(source)


def test_names_of_rows_are_their_custom_ids() -> None:
    source = InputFile("-", io.BytesIO(b'{"id": 7}\n{"id": "b"}\n'))
    source.id_column = "id"

    lines = input_lines(source)

    assert list(lines) == [{"id": 7}, {"id": "b"}]
    assert list(lines.custom_ids or ()) == ["7", "b"]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Where no Redis is."""
    shell = Shell(tmp_path / "shell")
    yield shell
    shell.close()


def test_what_needs_the_extra_says_how_to_install_it(shell: Shell) -> None:
    shell.module("pyarrow", "raise ImportError")
    (shell.folder / "in.csv").write_text("seconds,value\n,1\n")
    (shell.folder / "in.parquet").write_bytes(PARQUET)
    path = {"PYTHONPATH": str(shell.folder)}
    (shell.folder / "in.jsonl").write_text("1\n")
    # A home in which nothing can be made: it is told before anything is started.
    env = {**path, "BATCHORD_HOME": "/proc/unmade"}
    for given, out, what in (
        ("in.parquet", "out.jsonl", "a Parquet file"),
        ("in.jsonl", "out.parquet", "the file out.parquet"),
        ("in.jsonl", "out.jsonl.zst", "the file out.jsonl.zst"),
    ):
        answer = shell.run("run", "may-fail", "--chains", CHAINS, "-i", given, "-o", out, env=env)

        assert (answer.code, answer.err) == (
            2,
            f'Error: {what} needs the package pyarrow: pip install "batchord[tables]"\n',
        )
