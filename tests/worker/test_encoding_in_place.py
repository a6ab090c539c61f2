"""Small outputs are encoded on the event loop, large ones and those of classes in a thread."""

import asyncio
from concurrent.futures import Executor, Future
from typing import Any

import pydantic
import pytest

from batchord.ledger.settings import Settings
from batchord.worker.execution.attempt_result import encoded


class Verdict(pydantic.BaseModel):
    score: int


class Counting(Executor):
    """Runs a call at once, and counts it."""

    def __init__(self) -> None:
        self.calls = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.calls += 1
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "calls", "text"),
    [
        (None, 0, "null"),
        (True, 0, "true"),
        (1.5, 0, "1.5"),
        ("ü", 0, '"ü"'),
        ("x" * 16_384, 0, None),
        ("x" * 16_385, 1, None),
        ({"a": [1, None, {"b": "c"}]}, 0, '{"a": [1, null, {"b": "c"}]}'),
        ([0.5] * 256, 0, None),
        ([0.5] * 1_536, 1, None),
        ({"a": "x" * 20_000}, 1, None),
        ((1, 2), 1, "[1, 2]"),
        (Verdict(score=3), 1, '{"score": 3}'),
        ([Verdict(score=3)], 1, '[{"score": 3}]'),
        (nested(10), 0, "[" * 10 + "1" + "]" * 10),
        (nested(50), 1, "[" * 50 + "1" + "]" * 50),
        (nested(5_000), 1, "null"),
        (circle(), 1, "null"),
        ({1: 2}, 0, "null"),
    ],
    ids=lambda value: repr(value)[:20] if not isinstance(value, list) else f"list{len(value)}",
)
def test_an_output_is_encoded_where_that_costs_least(
    value: Any, calls: int, text: str | None
) -> None:
    threads = Counting()
    found, problem = asyncio.run(encoded(lambda output: output, value, 1, Settings(), threads))
    assert threads.calls == calls
    assert (problem is not None) == (found == "null" and value is not None)
    assert text is None or found == text
