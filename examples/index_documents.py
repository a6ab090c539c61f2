"""Index documents: split them into chunks, embed the new ones, and keep the vectors in FAISS.

    batchord up                                                # elsewhere
    python -m examples.index_documents docs/ index/            # again after each change
    python -m examples.index_documents docs/ index/ --search "how do I resume a batch?"

A chunk is known by the digest of its text: only chunks that the index lacks are embedded, and those
that no document has any more are taken out. The index is replaced as a whole at the end. A run that
was killed before goes on where it was, as vectors that were paid for are in the cache.
"""

import argparse
import hashlib
import importlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from batchord import Client, Embed

#: Characters of a chunk, at most, unless one paragraph is longer.
CHUNK: Final = 1_000
#: Suffixes of what is read.
TEXTS: Final = (".md", ".txt", ".rst")


class Chunk(NamedTuple):
    """A part of a document; equal texts are one chunk."""

    id: int
    source: str
    text: str


class Update(NamedTuple):
    """The counts of a run."""

    embedded: int
    removed: int
    total: int


def chunks(folder: Path) -> Iterator[Chunk]:
    """Yield the chunks of all texts below the folder: paragraphs, several while they are short."""
    for path in sorted(folder.rglob("*")):
        if path.suffix not in TEXTS:
            continue
        for text in _packed(path.read_text().split("\n\n")):
            # FAISS takes 63 bits.
            number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
            yield Chunk(number, str(path.relative_to(folder)), text)


def _packed(paragraphs: Iterable[str]) -> Iterator[str]:
    text = ""
    for paragraph in filter(None, map(str.strip, paragraphs)):
        if text and len(text) + len(paragraph) > CHUNK:
            yield text
            text = ""
        text = f"{text}\n\n{paragraph}" if text else paragraph
    if text:
        yield text


def update(client: Client, documents: Path, index: Path, model: str | None = None) -> Update:
    """Bring the index up to date with the documents."""
    faiss: Any = importlib.import_module("faiss")
    wanted = {chunk.id: chunk for chunk in chunks(documents)}
    vectors, known = _read(index)
    new = [chunk for chunk in wanted.values() if chunk.id not in known]
    gone = [number for number in known if number not in wanted]
    if new:
        found = _embedded(client, new, model)
        if vectors is None:
            vectors = faiss.IndexIDMap2(faiss.IndexFlatIP(found.shape[1]))
        vectors.add_with_ids(found, np.array([chunk.id for chunk in new], np.int64))
    if gone:
        vectors.remove_ids(np.array(gone, np.int64))
    if new or gone:
        _write(index, vectors, wanted.values())
    return Update(len(new), len(gone), len(wanted))


def _embedded(client: Client, new: list[Chunk], model: str | None) -> Any:
    """Return the unit vectors of the chunks, as rows."""
    inputs = [{"text": chunk.text} for chunk in new]
    batch = client.submit(embed="text", model=model, inputs=inputs, cache=True)
    return _units(batch.outputs())


def _units(vectors: Any) -> Any:
    rows = np.array(vectors, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def search(index: Path, text: str, k: int = 4, model: str | None = None) -> list[Chunk]:
    """Return the chunks that are nearest to the text, the nearest first."""
    vectors, known = _read(index)
    if vectors is None:
        return []
    _, found = vectors.search(_units([Embed(model).invoke(text)]), k)
    return [known[number] for number in found[0].tolist() if number in known]


def _read(index: Path) -> tuple[Any, dict[int, Chunk]]:
    """Return the vectors and the chunks of an index; without an index, None and no chunks."""
    if not (index / "now").exists():
        return None, {}
    faiss: Any = importlib.import_module("faiss")
    lines = (index / "now" / "chunks.jsonl").read_text().splitlines()
    known = [Chunk(*json.loads(line)) for line in lines]
    return faiss.read_index(str(index / "now" / "vectors.faiss")), {one.id: one for one in known}


def _write(index: Path, vectors: Any, all_chunks: Iterable[Chunk]) -> None:
    """Write both files into a folder of their own, and point `now` to it in one step."""
    faiss: Any = importlib.import_module("faiss")
    lines = [f"{json.dumps(chunk)}\n" for chunk in all_chunks]
    text = "".join(lines)
    folder = index / hashlib.sha256(text.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    faiss.write_index(vectors, str(folder / "vectors.faiss"))
    (folder / "chunks.jsonl").write_text(text)
    link = index / "next"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    os.replace(link, index / "now")


def main() -> None:
    """Update the index that the command line names, and search it if asked to."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("documents", type=Path)
    parser.add_argument("index", type=Path)
    parser.add_argument("--search", metavar="TEXT")
    parser.add_argument("-m", "--model", help="else OPENAI_EMBEDDING_MODEL")
    given = parser.parse_args()
    with Client() as client:
        done = update(client, given.documents, given.index, given.model)
    print(f"{done.embedded} embedded, {done.removed} removed, {done.total} in all")
    if given.search:
        for chunk in search(given.index, given.search, model=given.model):
            print(f"\n{chunk.source}:\n{chunk.text}")


if __name__ == "__main__":
    main()
