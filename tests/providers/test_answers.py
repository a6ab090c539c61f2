"""Answers that are none, or odd: through each step, a LangChain model, a file, provider mode."""

import os
from collections.abc import Callable
from typing import Any

import pydantic
import pytest

from chains import Chat, Embed, Responses, RetryPolicy, Runnable, explain
from chains.coerce import coerce
from chains.request import Request
from tests.providers.behaviours import changed, choice, content, cut, encoded, says, sends
from tests.providers.rows import Row
from tests.providers.server import MisbehavingServer

AT_ONCE = RetryPolicy(initial=0.0)


class Verdict(pydantic.BaseModel):
    summary: str
    score: float


def langchain() -> Runnable[Any, Any]:
    from langchain_openai import ChatOpenAI

    url, key = os.environ["OPENAI_BASE_URL"], pydantic.SecretStr("sk-test-0123456789")
    model = ChatOpenAI(model="test-model", base_url=url, api_key=key, max_retries=0)
    return coerce(model).with_retry(AT_ONCE)


def posted(text: str) -> dict[str, Any]:
    body = {"model": "test-model", "messages": [{"role": "user", "content": text}]}
    return {"url": "/v1/chat/completions", "body": body}


#: By name: what is called, and what it is given for a text.
ROUTES: dict[str, tuple[Callable[[], Runnable[Any, Any]], Callable[[str], Any]]] = {
    "chat": (lambda: Chat(retry=AT_ONCE), str),
    "typed": (lambda: Chat(output_type=Verdict, retry=AT_ONCE), str),
    "responses": (lambda: Responses(retry=AT_ONCE), str),
    "typed-responses": (lambda: Responses(output_type=Verdict, retry=AT_ONCE), str),
    "embed": (lambda: Embed(retry=AT_ONCE), str),
    "request": (lambda: Request(retry=AT_ONCE), posted),
    "langchain": (langchain, str),
}
CHATS = ("chat", "typed", "request")
ASKING = ("chat", "typed", "responses", "typed-responses")
EVERY = (*ASKING, "embed", "request")
ALSO_LANGCHAIN = (*EVERY, "langchain")

BUSY = {"error": {"code": 429, "message": "slow down"}}
BROKEN = {"error": {"code": 502, "message": "upstream has gone"}}

# fmt: off
ROWS = [
    Row(name="429 inside a 200", behaviour=says(BUSY), routes=ALSO_LANGCHAIN,
        code="rate_limited", retryable=True, says="slow down", calls=3, http_status=429),
    Row(name="502 inside a 200", behaviour=says(BROKEN), routes=ALSO_LANGCHAIN,
        code="server_error", retryable=True, says="upstream has gone", calls=3, http_status=502),
    Row(name="502 inside a 200, once", behaviour=says(BROKEN), routes=ALSO_LANGCHAIN,
        times=1, calls=2),
]
# fmt: on

CASES = [pytest.param(row, route, id=f"{row.name}-{route}") for row in ROWS for route in row.routes]


@pytest.mark.parametrize(("row", "route"), CASES)
def test_what_becomes_of_it(provider: MisbehavingServer, row: Row, route: str) -> None:
    row.set_up(provider)
    make, given = ROUTES[route]
    try:
        output = make().invoke(given(f"{row.match} hello"))
    except Exception as error:  # noqa: BLE001
        info = explain(error)
        row.judge_error(info)
        assert info.needs_operator is row.needs_operator
    else:
        row.judge_output(output)
    if row.calls is not None:
        assert provider.calls(row.match) == row.calls
