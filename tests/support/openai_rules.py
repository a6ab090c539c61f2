"""How a test tells the server to misbehave: rules by what a request says, counted or for good."""

import threading
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

#: What the real embeddings endpoint accepts; a token is a word here.
MAX_EMBEDDING_INPUTS = 2_048
MAX_EMBEDDING_TOKENS = 8_192
MAX_EMBEDDING_REQUEST_TOKENS = 300_000

Action = Literal[
    "fail", "hang", "drop", "truncate", "refuse", "filter", "garbage", "break", "misbehave"
]

#: `type` and `code` of the real API's errors, where they are more than the status class says.
_KNOWN = {
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An error answer in OpenAI's form."""

    status: int
    message: str = "told to fail"
    code: str | None = None
    param: str | None = None
    #: Seconds for the `retry-after` header; None sends no such header.
    retry_after: float | None = None

    def response(self) -> web.Response:
        kind, code = _KNOWN.get(
            self.status, ("server_error" if self.status >= 500 else "invalid_request_error", None)
        )
        if self.code is not None:
            code = self.code
        if code == "insufficient_quota":
            kind = code
        error = {"message": self.message, "type": kind, "param": self.param, "code": code}
        response = web.json_response({"error": error}, status=self.status)
        if self.retry_after is not None:
            response.headers["retry-after"] = f"{self.retry_after:g}"
        return response


@dataclass
class Rule:
    """An answer to requests whose text holds `match`; None matches every request."""

    action: Action
    match: str | None
    #: How many more requests this rule takes; None means all of them.
    left: int | None = None
    failure: Failure = field(default_factory=lambda: Failure(status=500))
    #: What answers instead: see `tests.providers`.
    behaviour: Any = None


class Rules:
    """The rules of one server. Counted rules go before permanent ones, older before newer."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._rules_lock = threading.Lock()

    def fail_next(
        self,
        status: int,
        *,
        code: str | None = None,
        message: str = "told to fail",
        n: int = 1,
        retry_after: float | None = None,
        match: str | None = None,
    ) -> None:
        """Answer the next `n` matching requests with this error."""
        failure = Failure(status=status, code=code, message=message, retry_after=retry_after)
        self._add("fail", match, n, failure)

    def fail_when(
        self,
        match: str | None,
        *,
        status: int,
        code: str | None = None,
        message: str = "told to fail",
        retry_after: float | None = None,
    ) -> None:
        """Answer every matching request with this error."""
        failure = Failure(status=status, code=code, message=message, retry_after=retry_after)
        self._add("fail", match, None, failure)

    def hang_when(self, match: str | None, *, n: int | None = None) -> None:
        """Never answer; the request stays open until the caller or the server goes away."""
        self._add("hang", match, n)

    def drop_when(self, match: str | None, *, n: int | None = None) -> None:
        """Close the socket without an answer."""
        self._add("drop", match, n)

    def truncate_when(self, match: str | None, *, n: int | None = None) -> None:
        """Answer with half of the content and say that the limit was reached."""
        self._add("truncate", match, n)

    def refuse_when(self, match: str | None, *, n: int | None = None) -> None:
        """Answer with a refusal instead of content."""
        self._add("refuse", match, n)

    def filter_when(self, match: str | None, *, n: int | None = None) -> None:
        """Answer without content and say that the filter did it."""
        self._add("filter", match, n)

    def garbage_when(self, match: str | None, *, n: int | None = None) -> None:
        """Answer with content that fits no schema."""
        self._add("garbage", match, n)

    def break_when(self, match: str | None, *, code: str, n: int | None = None) -> None:
        """Answer a request to the Responses API with `status: failed` and this error."""
        self._add("break", match, n, Failure(status=200, code=code))

    def take_rule(self, text: str) -> Rule | None:
        """The rule that this request falls under, counted down by one."""
        with self._rules_lock:
            rule = self._first(text)
            if rule is not None and rule.left is not None:
                rule.left -= 1
                if rule.left == 0:
                    self._rules.remove(rule)
            return rule

    def look_for_rule(self, text: str) -> Rule | None:
        """The rule that this request falls under, not counted down."""
        with self._rules_lock:
            return self._first(text)

    def add_rule(self, rule: Rule) -> None:
        """Add a rule behind those of its kind: counted ones go before permanent ones."""
        with self._rules_lock:
            counted = sum(known.left is not None for known in self._rules)
            self._rules.insert(len(self._rules) if rule.left is None else counted, rule)

    def forget_rules(self) -> None:
        with self._rules_lock:
            self._rules.clear()

    def _add(
        self, action: Action, match: str | None, n: int | None, failure: Failure | None = None
    ) -> None:
        if n is not None and n < 1:
            return
        rule = Rule(action, match, left=n)
        if failure is not None:
            rule.failure = failure
        self.add_rule(rule)

    def _first(self, text: str) -> Rule | None:
        return next(
            (rule for rule in self._rules if rule.match is None or rule.match in text), None
        )


def embedding_failure(inputs: list[Any]) -> Failure | None:
    """Return the real endpoint's objection to these inputs, or None if it takes them."""

    def refuse(message: str, code: str | None = None) -> Failure:
        return Failure(status=400, message=f"Invalid 'input': {message}", code=code, param="input")

    if not inputs:
        return refuse("empty array.", "empty_array")
    if len(inputs) > MAX_EMBEDDING_INPUTS:
        known = f"maximum length {MAX_EMBEDDING_INPUTS}, but got {len(inputs)} instead."
        return refuse(f"array too long. Expected an array with {known}", "array_above_max_length")
    if not all(isinstance(text, str) for text in inputs):
        return refuse("this server embeds texts, not tokens.")
    if any(text == "" for text in inputs):
        return refuse("input cannot be an empty string.", "invalid_value")
    tokens = [len(text.split()) for text in inputs]
    if max(tokens) > MAX_EMBEDDING_TOKENS:
        return refuse(f"maximum context length is {MAX_EMBEDDING_TOKENS} tokens.")
    if sum(tokens) > MAX_EMBEDDING_REQUEST_TOKENS:
        known = f"max {MAX_EMBEDDING_REQUEST_TOKENS} tokens per request"
        return refuse(f"requested {sum(tokens)} tokens, {known}", "max_tokens_per_request")
    return None
