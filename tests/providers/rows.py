"""Rows of the tables, and how each is judged."""

import json
from dataclasses import dataclass
from typing import Any

from batchord.chains import ErrorInfo
from tests.providers.behaviours import Behaviour
from tests.providers.server import MisbehavingServer


@dataclass(frozen=True, kw_only=True)
class Row:
    """A behaviour, where it is met, and what becomes of an item that meets it."""

    name: str
    behaviour: Behaviour
    #: Names of the routes.
    routes: tuple[str, ...]
    #: The error; None: the item succeeds.
    code: str | None = None
    retryable: bool = False
    #: In the error's message.
    says: str = ""
    #: In the error's `raw`.
    raw: str = ""
    #: The output, if it succeeds; None: not looked at.
    output: Any = None
    #: Requests that the server counts; None: not looked at.
    calls: int | None = None
    #: This many requests meet it; None: all.
    times: int | None = None
    http_status: int | None = None
    needs_operator: bool = False
    #: Whether it is about HTTP itself, so that it is not met in a provider's file of answers.
    http: bool = False

    @property
    def match(self) -> str:
        """The word by which the server knows this row's requests."""
        return f"<{self.name}>"

    def set_up(self, server: MisbehavingServer) -> None:
        """Let the server meet this row's requests with its behaviour."""
        server.misbehave(self.behaviour, match=self.match, n=self.times)

    def judge_error(self, error: ErrorInfo | Any) -> None:
        """Fail unless the error, an item's or `explain`'s, is what this row expects."""
        assert (error.code, error.retryable) == (self.code, self.retryable), error
        assert self.says.lower() in error.message.lower()
        assert "{" not in error.message[:1], f"JSON instead of its words: {error.message}"
        if self.raw:
            assert self.raw in (error.raw or "")
        if self.http_status is not None:
            assert error.http_status == self.http_status
        json.dumps(error.raw).encode()

    def judge_output(self, output: Any) -> None:
        """Fail unless the output is what this row expects."""
        assert self.code is None, f"succeeded with {output!r}, for {self.code}"
        if self.output is not None:
            assert output == self.output
