"""Rules that a process's own limiter and the ledger's both keep."""

import asyncio
import math
import time
from collections.abc import Awaitable, Iterator
from typing import Any

import pytest

from batchord.chains.ratelimit.found_limits import News
from batchord.chains.ratelimit.limits import (
    MOST_AHEAD,
    POLL,
    Limiter,
    LocalLimiter,
    RateLimit,
    ReserveAnswer,
    ReserveRequest,
)
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.rate_limiter import LedgerLimiter
from tests.conftest import Deploy
from tests.support.harness import Deployment, wait_until
from tests.support.valkey import Server

LEASE = 0.3


@pytest.fixture(params=["local", "ledger"])
def limiter(request: pytest.FixtureRequest) -> Iterator[Limiter]:
    if request.param == "local":
        local = LocalLimiter()
        local.lease = LEASE
        yield local
        return
    deployment: Deployment = request.getfixturevalue("deploy")(lease=LEASE)
    store = BatchStore(deployment.settings)
    yield LedgerLimiter(store)
    store.close()


def run(call: Awaitable[ReserveAnswer]) -> ReserveAnswer:
    async def main() -> ReserveAnswer:
        return await call

    return asyncio.run(main())


def cool(limiter: Limiter, limit: RateLimit, seconds: float) -> None:
    asyncio.run(limiter.cool_down(limit, seconds))


def near(seconds: float) -> object:
    return pytest.approx(seconds, abs=0.06)


def test_a_burst_goes_at_once_and_then_places_in_time_follow(limiter: Limiter) -> None:
    limit = RateLimit("key", rpm=1200)
    first = run(limiter.reserve(limit, ReserveRequest("a", 0, tokens=[1] * 20)))
    # 12 are 1% of 1200; those that come within a tenth of a second have places.
    assert first.waits[:12] == [0.0] * 12
    assert 2 <= len(first.waits[12:]) <= 3
    # Another one gets one place, however far that is, and then no more.
    second = run(limiter.reserve(limit, ReserveRequest("b", 0, tokens=[1] * 5)))
    assert len(second.waits) == 1
    assert second.waits[0] == near(first.waits[-1] + 0.05)
    assert run(limiter.reserve(limit, ReserveRequest("b", 0, pending=1, tokens=[1]))).waits == []
    # What has come may go.
    assert run(limiter.reserve(limit, ReserveRequest("a", 12, due=2))).started == 2


def test_no_place_is_further_ahead_than_a_minute(limiter: Limiter) -> None:
    limit = RateLimit("key", rpm=1)
    assert run(limiter.reserve(limit, ReserveRequest("a", 0, tokens=[1]))).waits == [0.0]
    assert run(limiter.reserve(limit, ReserveRequest("b", 0, tokens=[1]))).waits == [
        near(MOST_AHEAD)
    ]
    third = run(limiter.reserve(limit, ReserveRequest("c", 0, tokens=[1])))
    assert (third.waits, third.again) == ([], near(60))


def test_tokens_are_owed_and_given_back(limiter: Limiter) -> None:
    limit = RateLimit("key", tpm=6_000)
    # Ten seconds' worth: it goes, and is owed.
    assert run(limiter.reserve(limit, ReserveRequest("a", 0, tokens=[1000]))).waits == [0.0]
    later = run(limiter.reserve(limit, ReserveRequest("b", 0, tokens=[100])))
    assert (later.waits, later.again) == ([], near((10 - 0.1) / 2))
    # It has used 10 of the 1000.
    assert run(
        limiter.reserve(limit, ReserveRequest("a", 0, correction=-990, tokens=[100]))
    ).waits == [near(0.1)]
    # And one has used more than was reserved for it.
    late = run(limiter.reserve(limit, ReserveRequest("a", 0, correction=2000, tokens=[1])))
    assert (late.waits, late.again) == ([], near((20 + 1.1 - 0.6 - 0.1) / 2))


def test_requests_and_tokens_are_reserved_in_one_step(limiter: Limiter) -> None:
    limit = RateLimit("key", rpm=600, tpm=6_000)
    # Tokens stop the third; it takes no request either.
    assert run(limiter.reserve(limit, ReserveRequest("a", 0, tokens=[30, 30, 1000]))).waits == [
        0.0,
        0.0,
    ]
    small = run(limiter.reserve(limit, ReserveRequest("a", 2, correction=-60, tokens=[0] * 4)))
    assert small.waits == [0.0] * 4


def test_a_cool_down_holds_for_all_and_voids_the_places_in_time(limiter: Limiter) -> None:
    limit = RateLimit("key", rpm=60)
    before = run(limiter.reserve(limit, ReserveRequest("a", 0, tokens=[1, 1])))
    assert before.waits == [0.0, near(1.0)]
    cool(limiter, limit, 0.3)
    cool(limiter, limit, 0.1)  # the later end holds
    asked = ReserveRequest("a", 1, era=before.era, due=1, tokens=[1])
    during = run(limiter.reserve(limit, asked))
    assert (during.started, list(during.waits), during.cooling) == (0, [], near(0.3))
    wait_until(
        lambda: not run(limiter.reserve(limit, ReserveRequest("c", 0))).cooling, what="it is over"
    )
    after = run(limiter.reserve(limit, asked))
    assert after.era != before.era
    assert after.started == 0, "its place was void"
    assert after.waits == [0.0], "and what it had cost was given back"
    assert run(limiter.reserve(RateLimit("other"), ReserveRequest("a", 0, tokens=[1]))).waits == [
        0.0
    ]


def test_calls_in_flight_are_counted_under_a_lease(limiter: Limiter) -> None:
    limit = RateLimit("key", concurrency=3)
    assert len(run(limiter.reserve(limit, ReserveRequest("a", 0, tokens=[1] * 5))).waits) == 3
    full = run(limiter.reserve(limit, ReserveRequest("b", 0, tokens=[1])))
    assert (full.waits, full.again) == ([], POLL)
    # One has ended: the number is absolute, and may be told twice.
    for _ in range(2):
        run(limiter.reserve(limit, ReserveRequest("a", 2)))
    assert run(limiter.reserve(limit, ReserveRequest("b", 0, tokens=[1, 1]))).waits == [0.0]
    # `a` says no more.
    wait_until(
        lambda: len(run(limiter.reserve(limit, ReserveRequest("b", 1, tokens=[1] * 5))).waits) == 2,
        what="the places of the dead are free",
    )


def test_what_is_refused_bounds_the_calls_in_flight_of_all(limiter: Limiter) -> None:
    limit = RateLimit("key")
    first = run(limiter.reserve(limit, ReserveRequest("a", 0, tokens=[1] * 5)))
    assert (len(first.waits), first.flying, first.bound) == (2, 2, 2), "few at first"
    wait_until(
        lambda: run(limiter.reserve(limit, ReserveRequest("a", 2))).bound == math.inf, "any number"
    )
    eight = [run(limiter.reserve(limit, ReserveRequest(f"{i}", 0, tokens=[1]))) for i in range(6)]
    assert [answer.waits for answer in eight] == [[0.0]] * 6
    # Four of the eight are refused, in three processes: four are borne.
    rounds = {"0": [0.5], "1": [0.5], "a": [0.5, 0.4]}
    answers = [
        run(limiter.reserve(limit, ReserveRequest(holder, 0, news=News(refused=refused))))
        for holder, refused in rounds.items()
    ]
    assert (answers[-1].flying, answers[-1].bound) == (4, 4)
    full = run(limiter.reserve(limit, ReserveRequest("b", 0, tokens=[1])))
    assert (full.waits, full.again) == ([], POLL)
    assert run(limiter.reserve(limit, ReserveRequest("2", 0, tokens=[1, 1]))).waits == [0.0]


def told(limiter: Limiter, held: int, **news: Any) -> float:
    """Tell the news of a process that has `held` calls in flight; return the bound."""
    asked = ReserveRequest("a", held, news=News(**news))
    return run(limiter.reserve(RateLimit("key", rpm=6_000_000), asked)).bound


def test_a_bound_that_is_used_up_is_raised_after_a_while_and_later_if_that_was_in_vain(
    limiter: Limiter,
) -> None:
    assert told(limiter, 4, refused=[0.01]) == 4
    time.sleep(0.02)
    assert told(limiter, 0, answered=200) == 4, "it is not used up"
    assert told(limiter, 4, answered=39, full=39) == 4
    assert told(limiter, 4, answered=1, full=1) == 5
    assert told(limiter, 5, answered=5, full=5) == 6, "the step was good for a round"
    assert told(limiter, 5, refused=[0.001]) == 5
    time.sleep(0.02)
    assert told(limiter, 5, answered=79, full=79) == 5
    assert told(limiter, 5, answered=1, full=1) == 6


def test_refusals_of_an_outage_say_nothing_of_what_is_borne(limiter: Limiter) -> None:
    assert told(limiter, 5, refused=[0.01]) == 5
    time.sleep(0.02)
    told(limiter, 4, answered=1)
    assert told(limiter, 2, refused=[0.001, 0.3]) == 2
    assert told(limiter, 1, recovered=True) == 5


def test_a_call_that_is_refused_alone_bounds_the_calls_a_second(limiter: Limiter) -> None:
    limit = RateLimit("key")
    assert run(limiter.reserve(limit, ReserveRequest("a", 0, tokens=[1]))).waits == [0.0]
    assert told(limiter, 0, refused=[0.01]) == 1
    # One a second, of all processes.
    first = run(limiter.reserve(limit, ReserveRequest("a", 0, tokens=[1])))
    second = run(limiter.reserve(limit, ReserveRequest("b", 0, tokens=[1])))
    assert (first.waits, second.waits) == ([near(1.0)], [near(2.0)])


def test_a_free_place_goes_to_the_process_that_has_fewest(deployment: Deployment) -> None:
    store = BatchStore(deployment.settings)
    limiter, limit = LedgerLimiter(store), RateLimit("key", concurrency=4)
    assert len(run(limiter.reserve(limit, ReserveRequest("a", 0, tokens=[1] * 4))).waits) == 4
    assert run(limiter.reserve(limit, ReserveRequest("b", 0, tokens=[1]))).waits == []
    assert run(limiter.reserve(limit, ReserveRequest("a", 3, tokens=[1]))).waits == []
    assert run(limiter.reserve(limit, ReserveRequest("b", 0, tokens=[1] * 2))).waits == [0.0]
    assert run(limiter.reserve(limit, ReserveRequest("a", 2, tokens=[1]))).waits == []
    assert run(limiter.reserve(limit, ReserveRequest("b", 1, tokens=[1] * 2))).waits == [0.0]
    # They have the same now, and each keeps what it has.
    assert run(limiter.reserve(limit, ReserveRequest("a", 1, tokens=[1]))).waits == [0.0]
    store.close()


def test_while_the_ledger_is_away_calls_wait(
    server: Server, deploy: Deploy, caplog: pytest.LogCaptureFixture
) -> None:
    store = BatchStore(deploy(url=server.url).settings)
    server.kill()

    async def ask() -> ReserveAnswer:
        asking = asyncio.create_task(
            LedgerLimiter(store).reserve(
                RateLimit("key", rpm=60), ReserveRequest("a", 0, tokens=[1])
            )
        )
        noticed = "rate limits wait for the ledger"
        await asyncio.to_thread(wait_until, lambda: noticed in caplog.text, "it has noticed")
        await asyncio.to_thread(server.start)
        return await asking

    assert asyncio.run(ask()).waits == [0.0]
    store.close()


@pytest.mark.parametrize("uptime", [0.1, 12_345.678, 131_072.3, 262_144.7, 10_000_000.7])
def test_a_burst_is_whole_however_long_the_machine_has_been_up(uptime: float) -> None:
    for step in range(100):
        now = uptime + step * 0.0137
        limiter = LocalLimiter(clock=lambda now=now: now)  # type: ignore[misc]
        answer = run(
            limiter.reserve(RateLimit("key", rpm=1200), ReserveRequest("a", 0, tokens=[1] * 20))
        )
        assert answer.waits == [0.0] * 12 + [0.05, 0.1]
