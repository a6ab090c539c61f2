"""Arrivals at a server, counted independently of what let them through."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

from tests.support import openai_answers as answers
from tests.support.openai_server import Request


def arrivals(requests: Iterable[Request]) -> list[tuple[float, int]]:
    """When each request arrived, and the tokens that it was billed, in order."""
    return sorted((request.started, _tokens(request)) for request in requests)


def _tokens(request: Request) -> int:
    if "messages" not in request.body:
        return answers.count_tokens(request.text)
    usage = answers.chat_usage(request.body, answers.chat_content(request.body) or "")
    return int(usage["total_tokens"])


def most_over(arrived: Sequence[tuple[float, float]], per_minute: float, window: float) -> float:
    """By how much the fullest window holds more than the limit allows for its length.

    Windows of all lengths up to `window` seconds that begin and end with an arrival.
    """
    times = [when for when, _ in arrived]
    sums = [0.0, *accumulate(n for _, n in arrived)]
    return max(
        sums[last + 1] - sums[first] - per_minute / 60 * (times[last] - times[first])
        for first in range(len(times))
        for last in range(first, len(times))
        if times[last] - times[first] <= window
    )


def over_since(start: float, arrived: Sequence[tuple[float, float]], per_minute: float) -> float:
    """By how much more has arrived at some moment than the limit allows since `start`.

    Calls that a busy machine makes late arrive together with later ones, which `most_over` sees as
    an excess; what is counted from the start of all is no more than was let through.
    """
    sums = accumulate(n for _, n in arrived)
    return max(
        total - per_minute / 60 * (when - start)
        for (when, _), total in zip(arrived, sums, strict=True)
    )


def used(arrived: Sequence[tuple[float, float]], per_minute: float) -> float:
    """Return the share of the limit that was used from the first arrival to the last."""
    seconds = arrived[-1][0] - arrived[0][0]
    return sum(n for _, n in arrived[:-1]) / (per_minute / 60 * seconds)
