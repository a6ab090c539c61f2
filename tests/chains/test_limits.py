"""Rate limits within a process: what the server counts, and who waits for how long."""

import asyncio
import time
from email.utils import formatdate
from functools import partial
from random import Random
from typing import Any

import pytest

from batchord.chains import Chat, Embed, RateLimit, RetryLater, RetryPolicy
from batchord.chains.openai.errors import retry_after
from batchord.chains.ratelimit.admission_queue import AHEAD
from batchord.chains.ratelimit.circuit_breaker import Event, Health
from batchord.chains.ratelimit.guard import of_batch, within
from batchord.chains.ratelimit.limits import (
    BURST,
    LocalLimiter,
    ReserveAnswer,
    ReserveRequest,
    install,
    limiter,
)
from batchord.chains.runtime.deadline import Deadline
from batchord.chains.usage import Usage
from tests.chains.conftest import until
from tests.support import virtual_time
from tests.support.openai_server import OpenAIServer
from tests.support.traffic import arrivals, most_over, used

ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture(autouse=True)
def _own_limiter() -> Any:
    before = limiter()
    install(LocalLimiter())
    yield
    install(before)


#: Seconds by which a busy machine may make calls late, so that they arrive closer together than
#: they were let go. How exactly a limit is kept is tested in virtual time, below.
LATE = 0.25


def test_the_calls_of_a_batch_keep_to_requests_a_minute(server: OpenAIServer) -> None:
    limit = RateLimit("test:model", rpm=1500)
    texts = [f"number {i}" for i in range(45)]
    assert Chat(limit=limit).batch(texts) == [f"echo: {text}" for text in texts]
    calls = [(when, 1) for when, _ in arrivals(server.requests)]
    assert most_over(calls, 1500, 60) <= 1500 / 60 * (BURST + LATE) + 3


@pytest.mark.parametrize("word", ["a", "overestimated" * 5])
def test_tokens_are_settled_with_what_was_really_used(server: OpenAIServer, word: str) -> None:
    tpm = 60_000
    limit = RateLimit("test:model", tpm=tpm)
    texts = [f"{i} " + f"{word} " * 19 for i in range(40)]
    chat = Chat(limit=limit)
    chat.invoke(texts[0])  # it tells how wrong the guess is
    chat.batch(texts)
    assert most_over(arrivals(server.requests), tpm, 60) <= tpm / 60 * (BURST + LATE) + 2 * 41


Calls = list[tuple[float, float]]


def calls_in_virtual_time(
    limit: RateLimit, count: int, *, guessed: int = 1, used: int = 1
) -> tuple[Calls, float]:
    """When each of this many calls of 50 ms began, with its tokens; and when all were over."""
    begun: Calls = []

    async def call() -> tuple[None, Usage]:
        begun.append((virtual_time.now(), used))
        await asyncio.sleep(0.05)
        return None, Usage(input_tokens=used)

    async def some() -> float:
        install(LocalLimiter(clock=asyncio.get_running_loop().time))
        await within(limit, guessed, call)  # it tells how wrong the guess is
        await asyncio.gather(*(within(limit, guessed, call) for _ in range(count - 1)))
        return virtual_time.now()

    seconds = virtual_time.run(some())
    return begun, seconds


def test_all_requests_of_a_minute_are_used() -> None:
    begun, seconds = calls_in_virtual_time(RateLimit("key", rpm=1500), 1500)
    assert most_over(begun, 1500, 60) <= 1500 / 60 * BURST + 1
    assert used([(when, 1) for when, _ in begun], 1500) >= 0.99
    assert 58 < seconds < 61


@pytest.mark.parametrize("guessed", [10, 40, 100], ids="guessed={}".format)
def test_all_tokens_of_a_minute_are_used_with_good_guesses_and_bad_ones(guessed: int) -> None:
    begun, _ = calls_in_virtual_time(RateLimit("key", tpm=60_000), 1500, guessed=guessed, used=40)
    assert most_over(begun, 60_000, 60) <= 60_000 / 60 * BURST + 2 * 40
    assert used(begun, 60_000) >= 0.95


def test_all_places_in_flight_are_used() -> None:
    begun, seconds = calls_in_virtual_time(RateLimit("key", concurrency=4), 400)
    assert len(begun) == 400
    assert seconds == pytest.approx(400 / 4 * 0.05, rel=0.05)


def through_a_provider(
    bears: int, calls: int, *, slow: bool = False
) -> tuple[int, list[int], float]:
    """Make calls of 1 s, 200 at once, to a provider that bears this many at once: how many it has
    refused, how many it had as each began but for the first and last ones, and the seconds. A slow
    one refuses none and keeps them waiting."""
    refused = in_flight = answered = 0
    beside: list[int] = []

    async def call() -> tuple[None, Usage]:
        nonlocal refused, in_flight, answered
        if in_flight >= bears and not slow:
            refused += 1
            raise RetryLater("busy", code="rate_limited")
        in_flight += 1
        if 300 < answered < calls - 300:
            beside.append(in_flight)
        await asyncio.sleep(max(1.0, in_flight / bears * 8 if in_flight > bears else 0))
        in_flight -= 1
        answered += 1
        return None, Usage()

    async def one() -> None:
        while True:
            try:
                await within(RateLimit("key"), 1, call)
            except RetryLater:
                await asyncio.sleep(0.5)
            else:
                return

    async def many(times: int) -> None:
        for _ in range(times):
            await one()

    async def some() -> float:
        install(LocalLimiter(clock=asyncio.get_running_loop().time))
        if slow:
            await asyncio.gather(*(one() for _ in range(bears)))  # it tells what is usual
        await asyncio.gather(*(many(calls // 200) for _ in range(200)))
        return virtual_time.now()

    seconds = virtual_time.run(some())
    return refused, beside, seconds


def test_a_provider_that_refuses_is_asked_for_as_much_as_it_bears() -> None:
    refused, beside, seconds = through_a_provider(40, 4000)
    assert max(beside) == 40
    assert seconds < 4000 / 40 * 1.25
    assert refused < 0.05 * 4000


def test_a_provider_that_becomes_slow_is_asked_for_less() -> None:
    _, beside, _ = through_a_provider(40, 4000, slow=True)
    assert min(beside) < 60


def test_calls_that_take_very_different_times_are_all_made_at_once() -> None:
    """Half of them take a tenth of a second, and one in fifty twenty times as long."""
    most = in_flight = 0

    async def call(seconds: float) -> tuple[None, Usage]:
        nonlocal most, in_flight
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(seconds)
        in_flight -= 1
        return None, Usage()

    async def some() -> float:
        install(LocalLimiter(clock=asyncio.get_running_loop().time))
        random = Random(1)
        for _ in range(10):  # batches, each of which ends with its slowest calls
            times = [random.lognormvariate(-2.3, 1.3) for _ in range(500)]
            await asyncio.gather(*(within(RateLimit("key"), 1, partial(call, t)) for t in times))
        return most

    assert virtual_time.run(some()) == 500


def test_calls_in_flight_are_capped(server: OpenAIServer) -> None:
    server.delay = 0.05
    Chat(limit=RateLimit("test:model", concurrency=4)).batch([str(i) for i in range(40)])
    assert server.peak_in_flight == 4


def test_texts_to_embed_keep_to_the_limit_too(server: OpenAIServer) -> None:
    embed = Embed("test-embedding", limit=RateLimit("test:embed", rpm=600))
    server.fail_next(429, retry_after=0.3)
    assert len(embed.batch([f"text {i}" for i in range(2_050)])) == 2_050
    assert server.requests[0].status == 429
    assert len(server.requests) == 3


def test_a_refusal_with_retry_after_cools_down_and_is_no_attempt(server: OpenAIServer) -> None:
    server.fail_next(429, retry_after=0.4, n=8)
    server.delay = 0.02
    chat = Chat(limit=RateLimit("test:model"), retry=ONCE)
    assert len(chat.batch([str(i) for i in range(30)], {"max_concurrency": 10})) == 30
    refused = [request for request in server.requests if request.status == 429]
    cool = min(request.finished or 0.0 for request in refused)
    assert not [r for r in server.requests if cool + 0.05 < r.started < cool + 0.4]
    assert len(server.requests) == 38


def test_a_step_that_never_retries_waits_for_a_cool_down_all_the_same(server: OpenAIServer) -> None:
    server.fail_next(429, retry_after=0.1, n=2)
    chat = Chat(limit=RateLimit("test:model"), retry=None)
    assert chat.invoke("hello") == "echo: hello"


def test_a_refusal_without_retry_after_is_an_attempt(server: OpenAIServer) -> None:
    server.fail_next(429)
    with pytest.raises(RetryLater):
        Chat(limit=RateLimit("test:model"), retry=ONCE).invoke("hello")


def test_a_parallel_batch_has_its_turn_at_once(server: OpenAIServer) -> None:
    chat = Chat(limit=RateLimit("test:model", rpm=1200))

    async def two() -> int:
        large = asyncio.create_task(chat.abatch(["large"] * 300))
        await until(lambda: len(server.requests) > 13)
        before = len(server.requests)
        await chat.abatch(["small"] * 5)
        meanwhile = len(server.requests) - before
        large.cancel()
        return meanwhile

    # Every second place is its own, but for those that were held already.
    assert asyncio.run(two()) <= AHEAD + 2 * 5


def test_a_call_that_is_given_up_leaves_its_turn_to_others(server: OpenAIServer) -> None:
    chat = Chat(limit=RateLimit("test:model", rpm=1200, concurrency=1))

    async def some() -> list[str]:
        calls = [asyncio.create_task(chat.ainvoke(str(i))) for i in range(40)]
        await until(lambda: len(server.requests) > 3)
        for call in calls[:-5]:
            call.cancel()
        return await asyncio.gather(*calls[-5:])

    assert asyncio.run(some()) == [f"echo: {i}" for i in range(35, 40)]
    assert server.peak_in_flight == 1


class Recorder:
    """Allows all, and remembers what it was told."""

    lease = 15.0

    def __init__(self) -> None:
        self.asked: list[ReserveRequest] = []
        self.cooled: list[float] = []

    async def reserve(self, limit: RateLimit, asked: ReserveRequest) -> ReserveAnswer:
        self.asked.append(asked)
        return ReserveAnswer(0, 0.0, asked.due, [0.0] * len(asked.tokens))

    async def cool_down(self, limit: RateLimit, seconds: float) -> None:
        self.cooled.append(seconds)

    async def health(self, name: str, event: Event) -> Health:
        return Health()


def refused(*afters: float) -> Any:
    """A call that is refused so often, and then uses 7 tokens."""
    left = list(afters)

    async def call() -> tuple[str, Usage]:
        if left:
            raise RetryLater("slow down", code="rate_limited", after=left.pop(0))
        return "done", Usage(input_tokens=4, output_tokens=3)

    return call


@pytest.mark.parametrize(
    ("after", "seconds"), [(130.0, 130.1), (0.0, 0.2), (10.0**9, 3600.1)], ids=str
)
def test_however_long_the_provider_asks_for_is_kept(after: float, seconds: float) -> None:
    recorder = Recorder()
    install(recorder)

    async def some() -> None:
        call = asyncio.create_task(within(RateLimit("key"), 10, refused(after)))
        await until(lambda: bool(recorder.cooled))
        call.cancel()

    asyncio.run(some())
    assert recorder.cooled == [pytest.approx(seconds)]


def test_it_is_asked_once_a_call_and_settles_with_the_next_one() -> None:
    recorder = Recorder()
    install(recorder)
    limit = RateLimit("key", tpm=1000)

    async def some() -> None:
        for _ in range(3):
            await within(limit, 10, refused())
        await asyncio.gather(*(within(limit, 7, refused()) for _ in range(5)))
        await asyncio.sleep(0.01)

    asyncio.run(some())
    assert sum(len(asked.tokens) for asked in recorder.asked) == 8
    assert sum(asked.correction for asked in recorder.asked) == -9
    # The last five are asked for together, and need no settlement: they were guessed right.
    assert len(recorder.asked) <= 7


def test_it_is_told_how_long_calls_are_held_back() -> None:
    limit, begun, told = RateLimit("key", rpm=60), [], Usage()

    def note(usage: Usage) -> None:
        nonlocal told
        told += usage

    async def call() -> tuple[None, Usage]:
        begun.append(virtual_time.now())
        return None, Usage()

    async def some() -> None:
        install(LocalLimiter(clock=asyncio.get_running_loop().time))
        await asyncio.gather(*(within(limit, 1, call, report=note) for _ in range(10)))

    virtual_time.run(some())
    assert told.rate_limit_waits == 9  # the first goes at once
    assert told.rate_limit_wait_ms == pytest.approx(1000 * sum(begun), abs=10)


def test_a_deadline_stands_still_while_a_call_waits() -> None:
    limit = RateLimit("key", rpm=120)

    async def some() -> float:
        install(LocalLimiter(clock=asyncio.get_running_loop().time))
        async with Deadline(0.3):
            for _ in range(3):
                await within(limit, 1, refused())
        deadline = Deadline(0.1)
        with pytest.raises(TimeoutError):
            await overrun(deadline)
        assert deadline.expired()
        return virtual_time.now()

    async def overrun(deadline: Deadline) -> None:
        async with deadline:
            await within(limit, 1, refused())
            await asyncio.sleep(10)

    seconds = virtual_time.run(some())
    assert seconds == pytest.approx(1.5 + 0.1, abs=0.2)


def test_batches_take_turns_whatever_came_first() -> None:
    order: list[str] = []
    limit = RateLimit("key", concurrency=1)

    async def one(name: str) -> None:
        async def call() -> tuple[None, Usage]:
            order.append(name)
            await asyncio.sleep(0)
            return None, Usage()

        with of_batch(name):
            await within(limit, 1, call)

    async def some() -> None:
        await asyncio.gather(*(one(name) for name in "aaaaaaaabbbc"))

    asyncio.run(some())
    assert sorted(order) == list("aaaaaaaabbbc")
    assert order.index("c") <= 3
    assert "".join(order).rindex("b") <= 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": ""}, "text of 1 to 200 printable"),
        ({"key": "a\nb"}, "text of 1 to 200 printable"),
        ({"key": "a", "rpm": 0}, "rpm must be at least 1, not 0"),
        ({"key": "a", "tpm": -5}, "tpm must be at least 1, not -5"),
        ({"key": "a", "concurrency": 1.5}, "concurrency is a whole number, not float"),
        ({"key": "a", "rpm": True}, "rpm is a whole number, not bool"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        RateLimit(**options)


def test_all_forms_of_retry_after_are_understood() -> None:
    assert retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert retry_after({"retry-after": "200"}) == 200
    date = formatdate(time.time() + 300, usegmt=True)
    assert retry_after({"retry-after": date}) == pytest.approx(300, abs=2)
