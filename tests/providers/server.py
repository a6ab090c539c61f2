"""The test server with behaviours: raw HTTP responses, broken ones too, instead of its answers."""

import asyncio
import json
from contextlib import suppress
from typing import Any

from aiohttp import web

from tests.providers.behaviours import Behaviour, Raw
from tests.support import openai_answers as answers
from tests.support.openai_answers import JsonObject
from tests.support.openai_rules import Rule
from tests.support.openai_server import Answer, OpenAIServer, Request


class MisbehavingServer(OpenAIServer):
    """Serves what `OpenAIServer` does, and answers as behaviours say."""

    def misbehave(
        self, behaviour: Behaviour, *, match: str | None = None, n: int | None = None
    ) -> None:
        """Answer the requests whose text holds `match` like this: the next `n`, or all (None)."""
        self.add_rule(Rule("misbehave", match, left=n, behaviour=behaviour))

    def calls(self, match: str) -> int:
        """How many requests arrived whose text holds `match`."""
        return sum(match in request.text for request in self.requests)

    async def _respond(self, http: web.Request, request: Request, answer: Answer) -> web.Response:
        rule = self.look_for_rule(request.text)
        if rule is None or rule.behaviour is None:
            return await super()._respond(http, request, answer)
        self.take_rule(request.text)
        good = answer(request.body, None)
        raw = rule.behaviour(request.body, json.loads(good.text or "{}"))
        await self._send(http, raw)
        return web.Response(status=raw.status)  # never sent: the connection is closed

    async def _send(self, http: web.Request, raw: Raw) -> None:
        transport = http.transport
        if not isinstance(transport, asyncio.Transport):
            return
        transport.write(raw.head() + raw.sent)
        if raw.hangs:
            await asyncio.Event().wait()
        transport.close()

    def _execute(self, url: str, body: JsonObject) -> tuple[int, JsonObject]:
        rule = self.look_for_rule(answers.request_text(body))
        if rule is None or rule.behaviour is None:
            return super()._execute(url, body)
        self.take_rule(answers.request_text(body))
        _, good = super()._execute(url, body)
        raw = rule.behaviour(body, good)
        said: Any = raw.body.decode(errors="replace")
        with suppress(ValueError, RecursionError):  # else the text is the body as it is
            said = json.loads(said)
        return raw.status, said
