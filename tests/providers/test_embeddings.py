"""A server that cannot embed some texts: these fail, no other does, and few requests are made."""

import asyncio
import json
import math
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchord.chains import ChainError, Embed, RetryPolicy
from batchord.chains.runtime.deadline import Deadline
from batchord.chains.runtime.item_context import scope
from tests.support import openai_answers as answers
from tests.support.openai_answers import JsonObject
from tests.support.openai_server import OpenAIServer

MODEL = "test-embedding"
DIMENSIONS = 4
AT_ONCE = RetryPolicy(initial=0.0)
#: How the text that the server cannot do is told from others.
BAD = "bad"


@pytest.fixture(scope="module")
def running() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def server(running: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> OpenAIServer:
    running.reset()
    monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    return running


class Behaviour(NamedTuple):
    """A bad text: how the server answers a request that holds it, and how the text ends."""

    begin: Callable[[OpenAIServer], None]
    code: str
    #: A text that is alone is asked for again, as the policy says.
    retried: bool = False
    #: Other texts of the request get no vector with it: it must be split.
    shared: bool = True


def fails(status: int) -> Callable[[OpenAIServer], None]:
    return lambda server: server.fail_when(BAD, status=status)


def spoils(change: Callable[[JsonObject, JsonObject], None]) -> Callable[[OpenAIServer], None]:
    """`change` is made of a bad text's entry, and of the whole answer."""

    def spoil(texts: list[Any], answer: JsonObject) -> web.Response:
        by_index = {entry["index"]: entry for entry in list(answer["data"])}
        for index, text in enumerate(texts):
            if BAD in text:
                change(by_index[index], answer)
        return web.Response(text=json.dumps(answer), content_type="application/json")

    def begin(server: OpenAIServer) -> None:
        server.spoil_embeddings = spoil

    return begin


def has(embedding: Any) -> Callable[[OpenAIServer], None]:
    return spoils(lambda entry, _: entry.update(embedding=embedding))


def leaves_out(entry: JsonObject, answer: JsonObject) -> None:
    """As some do: what is left is numbered anew, so that all behind it would shift."""
    answer["data"].remove(entry)
    for index, rest in enumerate(answer["data"]):
        rest["index"] = index


def sends_html(server: OpenAIServer) -> None:
    def spoil(texts: list[Any], answer: JsonObject) -> web.Response:
        if any(BAD in text for text in texts):
            return web.Response(text="<html>no</html>", content_type="text/html")
        return web.json_response(answer)

    server.spoil_embeddings = spoil


BEHAVIOURS = {
    "500": Behaviour(fails(500), "server_error", retried=True),
    "503": Behaviour(fails(503), "server_error", retried=True),
    "drop": Behaviour(lambda server: server.drop_when(BAD), "connection_error", retried=True),
    "400": Behaviour(fails(400), "bad_request"),
    "403": Behaviour(fails(403), "permission_denied"),
    "413": Behaviour(fails(413), "bad_request"),
    "422": Behaviour(fails(422), "unprocessable"),
    "too few": Behaviour(spoils(leaves_out), "invalid_output"),
    "too many": Behaviour(
        spoils(lambda entry, answer: answer["data"].append(dict(entry))), "invalid_output"
    ),
    "no data": Behaviour(
        spoils(lambda _, answer: answer.update(data=None)), "invalid_output", True
    ),
    "html": Behaviour(sends_html, "invalid_output", retried=True),
    "error in a 200": Behaviour(
        spoils(lambda _, answer: answer.update(data=None, error={"code": 502, "message": "no"})),
        "server_error",
        retried=True,
    ),
    "null": Behaviour(has(None), "invalid_output", shared=False),
    "empty": Behaviour(has([]), "invalid_output", shared=False),
    "empty text": Behaviour(has(""), "invalid_output", shared=False),
    "nested": Behaviour(has([[1.0] * DIMENSIONS]), "invalid_output", shared=False),
    "nulls": Behaviour(has([None] * DIMENSIONS), "invalid_output", shared=False),
    "strings": Behaviour(has(["1.0"] * DIMENSIONS), "invalid_output", shared=False),
    "booleans": Behaviour(has([True] * DIMENSIONS), "invalid_output", shared=False),
    "NaN": Behaviour(has([math.nan] * DIMENSIONS), "invalid_output", shared=False),
    "infinite": Behaviour(has([math.inf] * DIMENSIONS), "invalid_output", shared=False),
    "huge": Behaviour(has([10**400] * DIMENSIONS), "invalid_output", shared=False),
    "NaN in base64": Behaviour(has("AADAfwAAwH8AAMB/AADAfw=="), "invalid_output", shared=False),
    "no base64": Behaviour(has("not base64"), "invalid_output", shared=False),
    "half a number": Behaviour(has("AADA"), "invalid_output", shared=False),
    "an object": Behaviour(has({"values": [1.0]}), "invalid_output", shared=False),
    "no vector": Behaviour(
        spoils(lambda entry, _: entry.pop("embedding")), "invalid_output", shared=False
    ),
}


def texts_of(count: int, bad: Collection[int]) -> list[str]:
    return [f"{BAD if i in bad else 'text'} {i}" for i in range(count)]


def embedded(texts: list[str], **options: Any) -> list[Any]:
    options = {"retry": AT_ONCE, "dimensions": DIMENSIONS, **options}
    outputs: list[Any] = Embed(MODEL, **options).batch(texts, return_exceptions=True)
    return outputs


def wrong(texts: list[str], outputs: list[Any]) -> list[str]:
    """The texts that have failed; all others have their own vector, to the last digit."""
    failed = []
    for text, output in zip(texts, outputs, strict=True):
        if isinstance(output, ChainError):
            failed.append(text)
        else:
            assert output == [float(x) for x in answers.vector(text, DIMENSIONS)], text
    return failed


def most(count: int, bad: int, behaviour: Behaviour) -> int:
    """Requests that may be made: 2 log2(n) for each bad text, and the policy's two retries."""
    if not behaviour.shared or not bad:
        return 1
    retries = 2 * (bad + 1) if behaviour.retried else 0
    return 1 + bad * 2 * math.ceil(math.log2(count)) + retries


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_bad_texts_fail_alone(server: OpenAIServer, name: str) -> None:
    behaviour = BEHAVIOURS[name]
    several = [[0], [63], [0, 63], [7, 8, 9]] if behaviour.shared else [[0, 21, 31]]
    for bad in several:
        server.reset()
        behaviour.begin(server)
        texts = texts_of(64, bad)
        outputs = embedded(texts)
        assert wrong(texts, outputs) == [texts[i] for i in bad]
        assert {outputs[i].code for i in bad} == {behaviour.code}
        assert {outputs[i].step for i in bad} == {"Embed"}
        assert len(server.requests) <= most(64, len(bad), behaviour)


@pytest.mark.parametrize("place", [0, 133, 399])
@pytest.mark.parametrize("name", ["500", "too few"])
def test_one_of_400_costs_no_more_than_twice_the_logarithm(
    server: OpenAIServer, name: str, place: int
) -> None:
    BEHAVIOURS[name].begin(server)
    texts = texts_of(400, [place])
    assert wrong(texts, embedded(texts, retry=None)) == [texts[place]]
    assert len(server.requests) <= 1 + 2 * math.log2(400)


@given(
    flags=st.lists(st.booleans(), min_size=1, max_size=64),
    name=st.sampled_from(list(BEHAVIOURS)),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bad_texts_fail_and_no_others(
    server: OpenAIServer, flags: list[bool], name: str
) -> None:
    server.reset()
    behaviour = BEHAVIOURS[name]
    behaviour.begin(server)
    bad = [i for i, flag in enumerate(flags) if flag]
    texts = texts_of(len(flags), bad)
    outputs = embedded(texts)
    assert wrong(texts, outputs) == [texts[i] for i in bad]
    assert {outputs[i].code for i in bad} == ({behaviour.code} if bad else set())
    assert len(server.requests) <= most(len(flags), len(bad), behaviour)


@pytest.mark.parametrize(
    ("begin", "code", "requests"),
    [
        # The request with its retries, its halves and the probe.
        (lambda server: server.fail_when(None, status=503), "server_error", 3 + 2 + 1),
        (lambda server: server.drop_when(None), "connection_error", 3 + 2 + 1),
        (lambda server: server.fail_when(None, status=400), "bad_request", 1 + 2 + 1),
        (lambda server: server.fail_when(None, status=403), "permission_denied", 1 + 2 + 1),
        (lambda server: server.fail_when(None, status=401), "authentication_error", 1),
        (lambda server: server.fail_when(None, status=404), "model_not_found", 1),
        (
            lambda server: server.fail_when(None, status=429, code="insufficient_quota"),
            "insufficient_quota",
            1,
        ),
        (lambda server: server.fail_when(None, status=429), "rate_limited", 3),
    ],
)
def test_a_server_that_refuses_everything_is_not_asked_for_each_text(
    server: OpenAIServer,
    monkeypatch: pytest.MonkeyPatch,
    begin: Callable[[OpenAIServer], None],
    code: str,
    requests: int,
) -> None:
    monkeypatch.setenv("BATCHORD_OUTAGE_PATIENCE", "0")
    begin(server)
    outputs = embedded(texts_of(400, []))
    assert {output.code for output in outputs} == {code}
    assert len(server.requests) == requests


def test_a_server_that_fails_amid_the_search_is_not_asked_for_each_text(
    server: OpenAIServer,
) -> None:
    """It knows a bad text first, and then fails for a moment; no more than that is lost."""
    server.fail_next(400, match=BAD, n=3)
    server.fail_when(None, status=503)
    outputs = embedded(texts_of(400, [0]))
    assert {output.code for output in outputs} == {"server_error"}
    assert all(output.retryable for output in outputs)
    assert len(server.requests) <= 12


def test_a_text_that_is_never_answered_fails_alone(server: OpenAIServer) -> None:
    server.hang_when(BAD)
    texts = texts_of(8, [3])
    outputs = embedded(texts, timeout=1.0)
    assert wrong(texts, outputs) == [texts[3]]
    assert outputs[3].code == "timeout"
    assert len(server.requests) <= 1 + 2 * 3, "what takes so long is not asked for again"


Change = Callable[[int], Any]


@pytest.mark.parametrize(
    ("index_of", "sound"),
    [
        (lambda place: place, True),
        (lambda place: None, True),
        (lambda place: 0, True),
        (lambda place: "", True),
        (lambda place: [2, 0, 1][place], True),
        (lambda place: None if place == 1 else place, False),
        (lambda place: place + 1, False),
        (lambda place: min(place, 1), False),
        (lambda place: str(place), False),
        (lambda place: bool(place), False),
        (lambda place: float(place), False),
        (lambda place: -place, False),
    ],
)
@pytest.mark.parametrize("left_out", [False, True])
def test_the_index_places_vectors_or_they_are_taken_as_they_came_or_not_at_all(
    server: OpenAIServer, index_of: Change, sound: bool, left_out: bool
) -> None:
    def spoil(texts: list[Any], answer: JsonObject) -> web.Response:
        indexes = [index_of(place) for place in range(len(texts))]
        good = {entry["index"]: entry for entry in answer["data"]}
        permuted = sorted(map(repr, indexes)) == sorted(map(repr, range(len(texts))))
        sent = [
            {**good[index if permuted else place], "index": index}
            for place, index in enumerate(indexes)
        ]
        if left_out:
            sent = [
                {name: value for name, value in entry.items() if (name, value) != ("index", None)}
                for entry in sent
            ]
        return web.json_response({**answer, "data": sent})

    server.spoil_embeddings = spoil
    texts = texts_of(3, [])
    outputs = embedded(texts)
    assert wrong(texts, outputs) == ([] if sound else texts)
    assert {output.code for output in outputs if not sound} <= {"invalid_output"}
    assert len(server.requests) == 1


@pytest.mark.parametrize("bad", [[1], [0, 1], [0, 1, 2]])
def test_of_vectors_of_different_lengths_the_probe_tells_which_are_right(
    server: OpenAIServer, bad: list[int]
) -> None:
    has([0.5] * (DIMENSIONS + 1))(server)
    texts = texts_of(4, bad)
    outputs = embedded(texts)
    assert wrong(texts, outputs) == [texts[i] for i in bad]
    assert {outputs[i].code for i in bad} == {"invalid_output"}
    assert len(server.requests) == 2


def test_what_was_paid_for_an_answer_that_is_unusable_is_counted(server: OpenAIServer) -> None:
    spoils(lambda _, answer: answer.update(data=[]))(server)
    chain = Embed(MODEL, dimensions=DIMENSIONS)
    with scope() as run, pytest.raises(ChainError):
        chain.invoke(f"{BAD} text")
    assert run.usage is not None
    assert (run.usage.requests, run.usage.input_tokens) == (1, 2)


def test_the_search_ends_before_the_deadlines_of_the_innocent(server: OpenAIServer) -> None:
    """The SDK would wait for ten minutes, in which all the items would time out together."""
    server.hang_when(BAD)
    texts = texts_of(4, [3])

    async def one(embed: Embed, text: str) -> Any:
        async with Deadline(4.0):
            return await embed.ainvoke(text)

    async def main() -> list[Any]:
        embed = Embed(MODEL, dimensions=DIMENSIONS)
        return await asyncio.gather(*(one(embed, text) for text in texts), return_exceptions=True)

    assert wrong(texts, asyncio.run(main())) == [texts[3]]


def test_the_work_of_a_request_grows_with_its_texts_and_no_faster(server: OpenAIServer) -> None:
    def calls(count: int) -> int:
        """How many functions the event loop's thread calls for this many texts."""
        made = 0

        def count_calls(frame: Any, event: str, _: Any) -> None:
            nonlocal made
            made += event == "call"

        async def main() -> None:
            embed = Embed(MODEL, dimensions=DIMENSIONS)
            await embed.ainvoke("first")
            sys.setprofile(count_calls)
            try:
                await asyncio.gather(*(embed.ainvoke(f"text {i}") for i in range(count)))
            finally:
                sys.setprofile(None)

        asyncio.run(main())
        return made

    calls(1)  # what is imported on first use does not count
    assert calls(2_000) < 5 * calls(500)
