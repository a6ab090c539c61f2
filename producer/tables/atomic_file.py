"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from batchord.producer.tables.file_kinds import compressing, kind_of
from batchord.producer.tables.remote_file import Destination, RemoteFile


@contextmanager
def replacing(path: Destination) -> Iterator[IO[bytes]]:
    """Yield a file that replaces `path` at the end; after an exception, `path` stays unchanged.

    Raises:
        NotWritten: a file behind a URL could not be uploaded.
    """
    if isinstance(path, RemoteFile):
        with path.replacing() as file:
            yield file
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def packed(path: Destination) -> Iterator[IO[bytes]]:
    """Yield a file as `replacing` does, which is compressed if its name says so."""
    with replacing(path) as part, compressing(part, kind_of(path.name).compression) as file:
        yield file
