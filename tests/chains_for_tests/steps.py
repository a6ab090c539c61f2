"""Chains of several steps, each of which costs something."""

import time
from collections import Counter
from typing import Any

import openai  # noqa: F401  (as a worker starts, and not in the time of the first item)

from batchord.chains import Chat, Lambda, RetryLater, RetryPolicy, register

ONCE = RetryPolicy(max_attempts=1)

#: By input: how often the function below was called in this process.
_calls: Counter[str] = Counter()


def step(system: str, **options: Any) -> Chat[str]:
    return Chat("test-model", system=system, name=system, **options)


def in_vain(value: str) -> str:
    """It fails the first two times for each input."""
    _calls[value] += 1
    if _calls[value] <= 2:
        raise RetryLater("not yet")
    return value


def slow(value: str) -> str:
    """Nobody has paid for it, but it takes a while."""
    time.sleep(0.05)
    return f"{value} in {_calls[value]}"


def one_and_two(value: str) -> str:
    """Steps that are called, and are no steps of the chain."""
    return one.invoke(value) + two.invoke(value)


one, two, three = (step(name, retry=ONCE) for name in ("one", "two", "three"))

# What one call meets is its own here, and no outage.
register("three-steps", one | two | three, outage_patience=0)
register("one-two", one | two, outage_patience=0)
# Steps of a few tries, as they are by default: a call that fails in the moment in which an outage
# ends may be taken for one that fails by itself.
register("borne", step("one") | step("two"))
# An item gives its slot back for waits of a minute and more between attempts.
register("patient", one | two | step("three", retry=RetryPolicy(initial=60, cap=60)))
register(
    "retried",
    one | {"a": two, "b": three} | Lambda(lambda found: found["a"]) | in_vain,
    retry=RetryPolicy(max_attempts=3, initial=0.2),
)
register(
    "retried-once",
    one | two,
    retry=RetryPolicy(max_attempts=2, initial=0.2),
    outage_patience=0,
)
register("within", Lambda(one_and_two) | three)
register("not-paid", Lambda(slow) | three)
register("timed-out", one | two, timeout=2.0, retry=RetryPolicy(max_attempts=2, initial=0.1))
