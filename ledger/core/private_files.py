"""Folders and files for their user alone, whatever they were before."""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO

from batchord.chains.errors import BatchordError


class PrivateFolderError(BatchordError):
    """A folder for private data is not this user's."""


def private_folder(folder: Path) -> Path:
    """Make the folder if it is missing, give it mode 0700, and return it.

    Raises:
        PrivateFolderError: it is a link, or no folder, or belongs to another user, or cannot be
            made.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise PrivateFolderError(
            f"{folder} is a link or a file: set BATCHORD_HOME to the folder itself"
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise PrivateFolderError(
            f"cannot make {folder} ({error.strerror}): set BATCHORD_HOME to a folder of your own"
        ) from None
    make_private(folder)
    return folder


def make_private(path: Path) -> None:
    """Give a folder mode 0700, or a file 0600; a path that is gone by now is passed over.

    Raises:
        PrivateFolderError: it belongs to another user.
    """
    with suppress(FileNotFoundError):
        status = path.lstat()
        if status.st_uid != os.geteuid():
            raise PrivateFolderError(
                f"{path} belongs to another user: set BATCHORD_HOME to a folder of your own"
            )
        if not stat.S_ISLNK(status.st_mode):
            path.chmod(0o700 if stat.S_ISDIR(status.st_mode) else 0o600)


def open_private(path: Path) -> IO[bytes]:
    """Open a file to append to, which from now on is for its user alone.

    Raises:
        OSError: it is a link, or belongs to another user.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "ab")


def create_private(path: Path, text: str) -> None:
    """Write a new file for its user alone, which appears whole.

    Raises:
        FileExistsError: there is one; it stays as it is.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        os.link(part, path)
    finally:
        part.unlink()
