"""The user of a process, as the audit lines of a batch name it."""

import getpass
import socket


def actor() -> str:
    """Return the user of this process and its host, as "user@host"."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "?"  # a container's user may have no name
    return f"{user}@{socket.gethostname()}"
