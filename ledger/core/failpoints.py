"""Named points at which a test has the process die, as `kill -9` would have it.

`BATCHORD_CRASH_AT=after-claim:/path/to/mark` kills the process the first time it comes to the point
`after-claim`, and leaves the file as the proof. Who finds the file there goes on: a process that is
started again does not die again. Unset, as it is outside of tests, a point does nothing.
"""

import os
import signal
from typing import Final, Literal

VARIABLE: Final = "BATCHORD_CRASH_AT"

Point = Literal[
    # The producer.
    "before-seal",
    "after-seal",
    "half-published",
    # The process that runs items.
    "after-claim",
    "before-settle",
    "after-settle",
    "last-settle",
    # Closing shards, and the end.
    "in-gather",
    "before-commit",
    "after-commit",
    # What tells others of the end.
    "before-webhook",
    "after-webhook",
    # The sweep, and what it winds up.
    "sweep-mid-page",
    "wind-up-mid-page",
    # Provider mode.
    "half-built",
    "before-upload",
    "after-upload",
    "before-create",
    "after-create",
    "half-read",
    "half-dealt",
    # Steering.
    "retry-half-begun",
    # `batchord serve`.
    "upload-half",
    "upload-before-record",
    "batch-before-create",
    "batch-after-create",
    "validation-half",
    "validation-before-conclude",
    "content-half",
]


def crash_point(point: Point) -> None:
    """Die here, once, if the environment says so."""
    told = os.environ.get(VARIABLE)
    if told is not None:
        _die(point, told)


def _die(point: str, told: str) -> None:
    name, _, mark = told.partition(":")
    if name != point:
        return
    try:
        # Exclusively: of several processes that come here, one dies.
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
