"""CPU and memory of other processes, as /proc has them; None where there is no /proc."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")

#: Places in /proc/PID/stat, counted behind the process's name.
_SESSION, _UTIME, _STIME, _RSS = 3, 11, 12, 21


def _stat(pid: int | str) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    # The name stands in brackets, and may hold anything.
    return text.rpartition(")")[2].split()


def members(sessions: Iterable[int]) -> list[int]:
    """Return the processes of these sessions: a worker and its children."""
    wanted = {str(session) for session in sessions}
    if not wanted or not _PROC.is_dir():
        return []
    found = []
    for entry in os.listdir(_PROC):
        if entry.isdigit():
            stat = _stat(entry)
            if stat is not None and stat[_SESSION] in wanted:
                found.append(int(entry))
    return found


def cpu_seconds(pids: Iterable[int]) -> float | None:
    """Return the CPU time that processes have used so far, all threads together."""
    if not _PROC.is_dir():
        return None
    stats = [stat for pid in pids if (stat := _stat(pid)) is not None]
    return sum(int(stat[_UTIME]) + int(stat[_STIME]) for stat in stats) / _TICKS


def rss(pids: Iterable[int]) -> int | None:
    """Return the resident memory of processes together, in bytes; shared pages count twice."""
    if not _PROC.is_dir():
        return None
    stats = [stat for pid in pids if (stat := _stat(pid)) is not None]
    return sum(int(stat[_RSS]) for stat in stats) * _PAGE
