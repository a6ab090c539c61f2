"""When a failed call is made again."""

import pytest

from batchord.chains import ChainError, Lambda, OperatorNeeded, RetryLater, RetryPolicy

POLICY = RetryPolicy(max_attempts=10, initial=0.5, cap=8.0, patience=100.0)


@pytest.mark.parametrize(
    ("attempt", "longest"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (9, 8.0)]
)
def test_the_wait_doubles_up_to_the_cap_with_full_jitter(attempt: int, longest: float) -> None:
    error = RetryLater("busy")
    assert POLICY.delay(attempt, error, lambda: 1.0) == longest
    assert POLICY.delay(attempt, error, lambda: 0.5) == longest / 2
    assert POLICY.delay(attempt, error, lambda: 0.0) == 0.0


def test_the_providers_word_is_kept_and_a_little_more() -> None:
    error = RetryLater("busy", after=20.0)
    assert POLICY.delay(1, error, lambda: 0.0) == 20.0
    assert POLICY.delay(1, error, lambda: 1.0) == 22.0


def test_a_wait_beyond_patience_is_left_to_the_caller() -> None:
    assert POLICY.delay(1, RetryLater("busy", after=101.0)) is None


def test_attempts_are_counted_with_the_first() -> None:
    assert POLICY.delay(9, RetryLater("busy")) is not None
    assert POLICY.delay(10, RetryLater("busy")) is None


@pytest.mark.parametrize(
    "error",
    [ValueError("bug"), ChainError("no", code="refusal"), OperatorNeeded("no", code="x")],
)
def test_what_cannot_succeed_later_is_not_tried_again(error: Exception) -> None:
    assert POLICY.delay(1, error) is None
    calls = []

    def fail(n: int) -> int:
        calls.append(n)
        raise error

    with pytest.raises(type(error)):
        Lambda(fail).with_retry(POLICY).invoke(1)
    assert calls == [1]


def test_a_whole_chain_may_be_begun_again() -> None:
    calls = []

    def first(n: int) -> int:
        calls.append(n)
        return n

    def second(n: int) -> int:
        if len(calls) < 3:
            raise RetryLater("busy")
        return n

    chain = (Lambda(first) | second).with_retry(RetryPolicy(initial=0.0))
    assert chain.invoke(7) == 7
    assert calls == [7, 7, 7]


@pytest.mark.parametrize("bad", [{"max_attempts": 0}, {"initial": -1.0}, {"cap": -1.0}])
def test_a_policy_that_makes_no_sense_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        RetryPolicy(**bad)  # type: ignore[arg-type]  # one entry of either type
