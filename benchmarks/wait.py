"""The least time that calls can take: their wait, and nothing else."""

import heapq
from typing import Final

from benchmarks.inputs import MODELS, inputs
from benchmarks.llm_server import latency

IN_FLIGHT: Final = 200


def ideal(kind: str, items: int, slots: int = IN_FLIGHT) -> float:
    """Return the seconds of calls that cost nothing but their wait, begun in input order."""
    free = [0.0] * slots
    for prompt in inputs(kind, items):
        heapq.heapreplace(free, free[0] + latency(MODELS[kind], prompt))
    return max(free)
