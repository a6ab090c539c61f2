"""The workers that are alive, as Flower's pages and its API have them."""

from typing import Any, Final

from batchord.ledger.core.package_version import package_version
from batchord.ledger.storage.fleet import Fleet

#: Workers that a page shows; the others are counted.
SHOWN: Final = 24

#: What a page shows of a worker.
_SHORT: Final = {"name", "version", "slots", "in_flight", "since"}


def strip(fleet: Fleet) -> dict[str, Any]:
    """Return what a page shows of the workers: sums, and the first of them by name.

    `other_version`: it is of another version of Batchord than this Flower. A lag is rounded, so
    that a page is not told of each change in the last digit.
    """
    beats = sorted(fleet.workers.items(), key=lambda pair: (pair[1].name, pair[0]))
    return {
        "count": len(beats),
        "slots": sum(beat.slots for _, beat in beats),
        "in_flight": sum(beat.in_flight for _, beat in beats),
        "shown": [
            {
                "process": process,
                **beat.model_dump(mode="json", include=_SHORT),
                "loop_lag": round(beat.loop_lag or 0.0, 1),
                "chains": sorted(beat.chains),
                "drained": bool(beat.name) and not beat.queues,
                "other_version": beat.version != package_version(),
            }
            for process, beat in beats[:SHOWN]
        ],
    }
