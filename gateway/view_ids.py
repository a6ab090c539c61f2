"""The ids of output and error files, which follow from the batch's: nothing is stored for them."""

import re
from typing import Final, Literal

from batchord.ledger.models import BatchRecord

Kind = Literal["output", "error"]
KINDS: Final[tuple[Kind, ...]] = ("output", "error")

_VIEW: Final = re.compile(r"file-(output|error)-([0-9a-f]{24})")


def view_id(batch_id: str, kind: Kind) -> str:
    """Return the id of a batch's output or error file."""
    return f"file-{kind}-{batch_id.removeprefix('batch_')}"


def view_of(file_id: str) -> tuple[str, Kind] | None:
    """Return the batch and the kind that the id of an output or error file names."""
    found = _VIEW.fullmatch(file_id)
    if found is None:
        return None
    kind: Kind = "output" if found[1] == "output" else "error"
    return f"batch_{found[2]}", kind


def lines_in(record: BatchRecord, kind: Kind) -> int:
    """Return how many lines the output or error file has now."""
    counts = record.request_counts
    return counts.succeeded if kind == "output" else counts.done - counts.succeeded
