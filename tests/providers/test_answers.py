"""Missing and odd answers: through each step, a LangChain model, a file, provider mode."""

import json
import os
from collections.abc import Callable
from typing import Any

import pydantic
import pytest

from batchord.chains import Chat, Embed, Responses, RetryPolicy, Runnable, explain
from batchord.chains.composition.as_runnable import coerce
from batchord.chains.steps.raw_request import Request
from tests.providers.behaviours import Raw, changed, choice, content, cut, encoded, says, sends
from tests.providers.rows import Row
from tests.providers.server import MisbehavingServer

AT_ONCE = RetryPolicy(initial=0.0)


class Verdict(pydantic.BaseModel):
    summary: str
    score: float


def langchain() -> Runnable[Any, Any]:
    from langchain_openai import ChatOpenAI

    url, key = os.environ["OPENAI_BASE_URL"], pydantic.SecretStr("sk-test-0123456789")
    options: dict[str, Any] = {"model": "test-model", "base_url": url, "api_key": key}
    model = ChatOpenAI(**options, max_retries=0)
    return coerce(model).with_retry(AT_ONCE)


def posted(text: str) -> dict[str, Any]:
    body = {"model": "test-model", "messages": [{"role": "user", "content": text}]}
    return {"url": "/v1/chat/completions", "body": body}


def posted_response(text: str) -> dict[str, Any]:
    return {"url": "/v1/responses", "body": {"model": "test-model", "input": text, "text": {}}}


def broken_utf8(_request: Any, good: Any) -> Raw:
    return Raw(body=json.dumps(good, ensure_ascii=False).encode().replace(b"hello", b"h\xe9"))


def short(_request: Any, good: Any) -> Raw:
    return Raw(body=json.dumps(good).encode(), cut=20)


#: By name: what is called, and what it is given for a text.
ROUTES: dict[str, tuple[Callable[[], Runnable[Any, Any]], Callable[[str], Any]]] = {
    "chat": (lambda: Chat(retry=AT_ONCE), str),
    "typed": (lambda: Chat(output_type=Verdict, retry=AT_ONCE), str),
    "responses": (lambda: Responses(retry=AT_ONCE), str),
    "typed-responses": (lambda: Responses(output_type=Verdict, retry=AT_ONCE), str),
    "embed": (lambda: Embed(retry=AT_ONCE), str),
    "request": (lambda: Request(retry=AT_ONCE), posted),
    "posted-response": (lambda: Request(retry=AT_ONCE), posted_response),
    "langchain": (langchain, str),
}
CHATS = ("chat", "typed", "request")
ASKING = ("chat", "typed", "responses", "typed-responses")
RESPONSES = ("responses", "typed-responses", "posted-response")
EVERY = (*ASKING, "embed", "request")
ALSO_LANGCHAIN = (*EVERY, "langchain")

PAGE = (
    "<!DOCTYPE html><html><head><title>Bad gateway</title></head><body><p>nginx</p></body></html>"
)
THOUGHT = [{"type": "thinking", "thinking": "Let me see"}, {"type": "text", "text": "A"}, "B"]
DEEP = '{"a": ' * 5_000 + "1" + "}" * 5_000
CALLS = [{"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]


def fault(**error: Any) -> Any:
    return says({"error": {"message": "told so", **error}})


def response(**fields: Any) -> Any:
    return changed(lambda good: good.update(fields))


def always(text: str) -> Any:
    return content(lambda _: text)


def refuses(body: Any, status: int = 400) -> Any:
    return sends(body, status) if isinstance(body, str) else says(body, status)


# fmt: off
#: Rows 6 to 8: an error inside of a 200 is the error that a status of its own code would be.
INSIDE_A_200 = [
    Row(name="429 inside", behaviour=fault(code=429), routes=ALSO_LANGCHAIN,
        code="rate_limited", retryable=True, says="told so", calls=3, http_status=429),
    Row(name="429 as text", behaviour=fault(code="429"), routes=ALSO_LANGCHAIN,
        code="rate_limited", retryable=True, calls=3, http_status=429),
    Row(name="429 by word", behaviour=fault(code="rate_limit_exceeded"), routes=ALSO_LANGCHAIN,
        code="rate_limited", retryable=True, calls=3, http_status=429),
    Row(name="502 inside", behaviour=fault(code=502), routes=ALSO_LANGCHAIN,
        code="server_error", retryable=True, says="told so", calls=3, http_status=502),
    Row(name="502 inside, once", behaviour=fault(code=502), routes=ALSO_LANGCHAIN,
        times=1, calls=2),
    Row(name="408 inside", behaviour=fault(code=408), routes=ALSO_LANGCHAIN,
        code="timeout", retryable=True, calls=3, http_status=408),
    Row(name="400 inside", behaviour=fault(code=400), routes=ALSO_LANGCHAIN,
        code="bad_request", says="told so", calls=1, http_status=400),
    Row(name="400 by type", behaviour=fault(type="invalid_request_error"), routes=ALSO_LANGCHAIN,
        code="bad_request", calls=1, http_status=400),
    Row(name="content filter inside", behaviour=fault(code="content_filter"), routes=ALSO_LANGCHAIN,
        code="content_filter", calls=1),
    Row(name="401 inside", behaviour=fault(code=401), routes=ALSO_LANGCHAIN,
        code="authentication_error", says="told so", calls=1, needs_operator=True),
    Row(name="quota inside", behaviour=fault(code="insufficient_quota"), routes=ALSO_LANGCHAIN,
        code="insufficient_quota", calls=1, needs_operator=True),
    Row(name="no account inside", behaviour=fault(code="billing_not_active"), routes=ALSO_LANGCHAIN,
        code="insufficient_quota", calls=1, needs_operator=True),
    Row(name="a spent limit inside", routes=ALSO_LANGCHAIN, code="insufficient_quota", calls=1,
        behaviour=fault(code="billing_hard_limit_reached", type="invalid_request_error"),
        needs_operator=True),
    Row(name="no balance inside", behaviour=says({"error": {"message": "Insufficient Balance"}}),
        routes=EVERY, code="insufficient_quota", calls=1, needs_operator=True),
    Row(name="no code inside", behaviour=fault(), routes=ALSO_LANGCHAIN,
        code="server_error", retryable=True, says="told so", calls=3),
    Row(name="a text inside", behaviour=says({"error": "model is loading"}), routes=EVERY,
        code="server_error", retryable=True, says="model is loading", raw="loading", calls=3),
    Row(name="vLLM's form inside", routes=EVERY, code="bad_request", says="too long", calls=1,
        behaviour=says({"object": "error", "message": "too long", "type": "BadRequestError",
                        "code": 400})),
    Row(name="a list inside", behaviour=says([{"error": {"code": 503, "message": "full"}}]),
        routes=EVERY, code="server_error", retryable=True, says="full", calls=3),
    Row(name="finish error", behaviour=choice(finish_reason="error"), routes=(*CHATS, "langchain"),
        code="server_error", retryable=True, says="finish_reason is error", calls=3),
    Row(name="finish error, once", behaviour=choice(finish_reason="error"), times=1, calls=2,
        routes=(*CHATS, "langchain")),
    Row(name="error in a choice", routes=CHATS, code="rate_limited", retryable=True, calls=3,
        behaviour=choice(finish_reason="error", error={"code": 429, "message": "x"}), says="x"),
    Row(name="finish network_error", behaviour=choice(finish_reason="network_error"),
        routes=CHATS, code="server_error", retryable=True, calls=3),
    Row(name="choices null", behaviour=changed(lambda good: good.update(choices=None)),
        routes=("chat", "typed", "langchain"), code="invalid_output", retryable=True, calls=3),
    Row(name="choices none", behaviour=changed(lambda good: good.update(choices=[])),
        routes=("chat", "typed"), code="invalid_output", retryable=True, raw="choices", calls=3),
    Row(name="choices missing, with words", behaviour=says({"detail": "no worker is free"}),
        routes=("chat", "typed", "responses"), code="invalid_output", retryable=True,
        says="no worker is free", raw="detail", calls=3),
    Row(name="choices none, once", behaviour=changed(lambda good: good.update(choices=[])),
        routes=("chat", "typed"), times=1, calls=2),
    Row(name="failed, server_error", routes=RESPONSES, code="server_error", retryable=True, calls=3,
        behaviour=response(status="failed", error={"code": "server_error", "message": "x"})),
    Row(name="failed, rate limit", routes=RESPONSES, code="rate_limited", retryable=True, calls=3,
        behaviour=response(status="failed", error={"code": "rate_limit_exceeded", "message": "x"})),
    Row(name="failed, prompt", routes=RESPONSES, code="bad_request", says="why not", calls=1,
        behaviour=response(status="failed", error={"code": "invalid_prompt",
                                                   "message": "why not"})),
    Row(name="failed, no account", routes=RESPONSES, code="insufficient_quota", calls=1,
        behaviour=response(status="failed", error={"code": "billing_not_active", "message": "x"}),
        needs_operator=True),
    Row(name="failed without a word", behaviour=response(status="failed", error=None),
        routes=RESPONSES, code="server_error", retryable=True, calls=3),
    Row(name="cancelled", behaviour=response(status="cancelled"), routes=RESPONSES,
        code="server_error", retryable=True, calls=3),
    Row(name="incomplete", routes=("posted-response", "typed-responses"), code="length", calls=1,
        behaviour=response(status="incomplete",
                           incomplete_details={"reason": "max_output_tokens"})),
    Row(name="incomplete, filtered", routes=RESPONSES, code="content_filter", calls=1,
        behaviour=response(status="incomplete", incomplete_details={"reason": "content_filter"})),
]
#: Row 14: the reason of a refusal in any form.
REFUSALS = [
    Row(name=f"reason {n}", behaviour=refuses(body), routes=EVERY, code="bad_request",
        says="too much", raw="much", calls=1, http_status=400)
    for n, body in enumerate([
        {"error": "too much"}, {"error": {"message": "too much"}}, {"detail": "too much"},
        {"detail": [{"loc": ["body", "n"], "msg": "too much"}]}, {"errors": ["too much"]},
        {"errors": [{"message": "too much"}]}, [{"error": {"message": "too much"}}],
        {"message": "too much"}, {"error": None, "message": "too much"},
        {"error": {"error": {"detail": "too much"}}}, "too much",
        "<html><head><title>No</title></head><body><h1>too  much</h1></body></html>",
        ["too much"], {"fault": {}, "error_description": "too much"},
    ])
] + [
    Row(name="no reason", behaviour=refuses(""), routes=EVERY, code="bad_request",
        says="status 400", calls=1),
    Row(name="3 MB of reason", behaviour=refuses("<p>broken " + "x" * 3_000_000, 500),
        routes=EVERY, code="server_error", retryable=True, says="broken", calls=3),
    Row(name="422 of FastAPI", routes=EVERY, code="unprocessable", says="body.n: too much", calls=1,
        behaviour=refuses({"detail": [{"loc": ["body", "n"], "msg": "too much"}]}, 422)),
]
#: Rows 15 to 17 and 20 to 22.
ODD = [
    Row(name="parts", behaviour=choice(content=THOUGHT), routes=("chat",), output="AB", calls=1),
    Row(name="parts with JSON", routes=("typed",), output=Verdict(summary="x", score=1), calls=1,
        behaviour=choice(content=[THOUGHT[0], {"type": "text",
                                               "text": '{"summary": "x", "score": 1}'}])),
    Row(name="parts without a text", behaviour=choice(content=THOUGHT[:1]), routes=("chat",),
        code="invalid_output", raw="thinking", calls=1),
    Row(name="refusal in parts", routes=("chat", "typed"), code="refusal", says="I will not",
        behaviour=choice(content=[{"type": "refusal", "refusal": "I will not"}]), calls=1),
    Row(name="content is a number", behaviour=choice(content=7), routes=("chat", "typed"),
        code="invalid_output", retryable=True, raw="7", calls=3),
    *(
        Row(name=f"{name}{', once' if once else ''}", behaviour=behaviour, routes=EVERY,
            **({"times": 1, "calls": 2} if once else
               {"code": "invalid_output", "retryable": True, "calls": 3, "raw": raw}))
        for name, behaviour, raw in [
            ("HTML", sends(PAGE, content_type="text/html"), "Bad gateway"),
            ("HTML as JSON", sends(PAGE), "Bad gateway"),
            ("nothing", sends(""), ""),
            ("blanks", sends(" \n " * 50), ""),
            ("cut off", cut(0.7), '"'),
        ]
        for once in (False, True)
    ),
    Row(name="HTML's words", behaviour=sends(PAGE, content_type="text/html"), routes=EVERY,
        code="invalid_output", retryable=True, says="Bad gateway: nginx"),
    *(
        Row(name=f"{name} for LangChain", behaviour=behaviour, routes=("langchain",), calls=3,
            code="invalid_output", retryable=True, says=says)
        for name, behaviour, says in [
            ("no choices", changed(lambda good: good.update(choices=[])), "no choices"),
            ("JSON cut off", cut(0.7), "not JSON"),
            ("HTML as JSON", sends(PAGE), "not JSON"),
            ("nothing", sends(""), "not JSON"),
        ]
    ),
    Row(name="HTML for LangChain", behaviour=sends(PAGE, content_type="text/html"),
        routes=("langchain",), code="invalid_output", retryable=True, raw="Bad gateway", calls=3),
    Row(name="5,000 levels", http=True, behaviour=sends(DEEP), routes=EVERY, code="invalid_output",
        says="too deep", raw="a", calls=1),
    Row(name="5,000 levels in a text", behaviour=content(lambda _: DEEP),
        routes=("chat", "responses"), output=DEEP, calls=1),
    Row(name="5,000 levels, wanted flat", behaviour=content(lambda _: DEEP),
        routes=("typed", "typed-responses"), code="invalid_output", raw='{"a"', calls=3),
    Row(name="latin-1", http=True, routes=("chat",),
        behaviour=encoded("latin-1", lambda text: text.replace("hello", "h\xe9")),
        output="echo: <latin-1> h\xe9", calls=1),
    Row(name="latin-1, posted", routes=("typed", "responses", "embed", "request"), calls=1,
        behaviour=encoded("latin-1", lambda text: text.replace("hello", "h\xe9"))),
    Row(name="broken UTF-8", http=True, routes=("chat",), output="echo: <broken UTF-8> h\ufffd",
        behaviour=broken_utf8, calls=1),
    Row(name="lone surrogate", behaviour=content(lambda _: "a\ud800b"),
        routes=("chat", "responses"), output="a\ufffdb", calls=1),
    Row(name="lone surrogate, wanted", behaviour=content(lambda _: "a\ud800b"), calls=3,
        routes=("typed", "typed-responses"), code="invalid_output", raw="a\ufffdb"),
    *(
        Row(name=f"number {number}", routes=("typed", "typed-responses"),
            behaviour=always(f'{{"summary": "x", "score": {number}}}'),
            code="invalid_output", says="finite", raw=number, calls=3)
        for number in ("1e400", "-Infinity", "NaN")
    ),
    Row(name="silent", behaviour=choice(content=None), routes=("chat",), code="invalid_output",
        says="ended with stop", raw="content", calls=1),
    Row(name="silent, wanted", behaviour=choice(content=None), routes=("typed",),
        code="invalid_output", calls=3),
    Row(name="silent, once", behaviour=choice(content=None), routes=("typed",), times=1, calls=2),
    Row(name="calls a tool", behaviour=choice(content=None, tool_calls=CALLS,
                                              finish_reason="tool_calls"),
        routes=("chat", "typed"), code="invalid_output", raw='"look"', calls=1),
    *(
        Row(name=f"{status} to elsewhere", routes=ALSO_LANGCHAIN[:-1], code="redirected", calls=1,
            behaviour=sends("", status, location="https://elsewhere.test/v1/"),
            says="https://elsewhere.test/v1/", http_status=status, needs_operator=True)
        for status in (301, 302, 303, 307, 308)
    ),
]
#: Row 19.
GOOD = '{"summary": "x", "score": 1}'
WRAPPED = [
    Row(name=f"wrapped {n}", behaviour=always(text),
        routes=("typed", "typed-responses"), output=Verdict(summary="x", score=1), calls=1)
    for n, text in enumerate([
        f"```json\n{GOOD}\n```", f"```\n{GOOD}\n```",
        f"Here it is:\n\n```JSON\n{GOOD}\n```\nDone.",
        f"<think>Is it {{1}}?</think>\n{GOOD}",
        f"<think>```json\n{{}}\n```</think>```json\n{GOOD}```",
        f"so it is</think>{GOOD}", f"<thinking>a</thinking><think>b</think>\n{GOOD}",
        f"\ufeff{GOOD}", f"  \n{GOOD}\n",
    ])
] + [
    Row(name="two fences",
        behaviour=content(lambda _: f"```\n{GOOD}\n```\nor\n```\n{GOOD}\n```"),
        routes=("typed",), code="invalid_output", calls=3),
    Row(name="think block of a text", behaviour=content(lambda _: "<think>a</think>b"),
        routes=("chat",), output="<think>a</think>b", calls=1),
]
#: Row 24: what was right already.
RIGHT = [
    Row(name="no usage", behaviour=changed(lambda good: good.pop("usage") and None), routes=EVERY,
        calls=1),
    Row(name="odd usage", behaviour=changed(lambda good: good.update(usage="much")), routes=EVERY,
        calls=1),
    Row(name="no id, model, created", routes=EVERY, calls=1,
        behaviour=changed(lambda good: [good.pop(name, None) for name in ("id", "model",
                                                                        "created")] and None)),
    Row(name="204", http=True, routes=EVERY, behaviour=sends("", 204),
        code="invalid_output", retryable=True,
        calls=3),
    Row(name="short body", http=True, routes=EVERY, behaviour=short,
        code="connection_error", retryable=True,
        calls=3),
    Row(name="bad gzip", http=True, routes=EVERY,
        behaviour=sends("not gzip", content_encoding="gzip"),
        code="connection_error", retryable=True, calls=3),
    Row(name="garbage in Retry-After", behaviour=says({"error": {"message": "x"}}, 429,
                                                      retry_after="soon"),
        routes=EVERY, code="rate_limited", retryable=True, calls=3),
    Row(name="error of null", behaviour=changed(lambda good: good.update(error=None)),
        routes=EVERY, calls=1),
    Row(name="error of nothing", behaviour=changed(lambda good: good.update(error={})),
        routes=EVERY, calls=1),
]
# fmt: on
ROWS = [*INSIDE_A_200, *REFUSALS, *ODD, *WRAPPED, *RIGHT]
assert len({row.name for row in ROWS}) == len(ROWS)

CASES = [pytest.param(row, route, id=f"{row.name}-{route}") for row in ROWS for route in row.routes]


@pytest.mark.parametrize(("row", "route"), CASES)
def test_what_becomes_of_it(provider: MisbehavingServer, row: Row, route: str) -> None:
    row.set_up(provider)
    make, given = ROUTES[route]
    try:
        output = make().invoke(given(f"{row.match} hello"))
    except Exception as error:
        info = explain(error)
        row.judge_error(info)
        assert info.needs_operator is row.needs_operator
    else:
        row.judge_output(output)
    if row.calls is not None:
        assert provider.calls(row.match) == row.calls
