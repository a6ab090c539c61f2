"""The pages, and what they fetch: Flower's login and looks, our queries.

Nothing here talks to Redis itself: `Queries` does, in a thread, so that Flower's loop goes on.
"""

from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, ParamSpec, TypeVar

from flower.api import BaseApiHandler
from flower.views import BaseHandler
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, authenticated

from batchord.chains.errors import BatchordError
from batchord.ledger.budget import Budget
from batchord.ledger.core.message_ids import task_id
from batchord.ledger.models import BatchStatus
from batchord.worker.flower.error_statuses import status_of
from batchord.worker.flower.queries import CHUNK, MOST, PAGE, Action, Queries
from batchord.worker.flower.sse import EventStream

P = ParamSpec("P")
T = TypeVar("T")

#: The latest tasks that are looked through for a batch's workers.
_TASKS_LOOKED_AT: Final = 2_000

PAYLOADS_OFF: Final = (
    "results hold what the chain was given and what it made: start Flower with "
    "BATCHORD_FLOWER_PAYLOADS=1 to let those who may log in here have them"
)


class _AtTheDesk:
    """The base of Batchord's handlers; mixed into a handler of Flower's."""

    queries: Queries
    application: Any
    get_argument: Callable[..., Any]

    def initialize(self, queries: Queries) -> None:
        self.queries = queries

    async def ask(self, what: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a query; our errors become HTTP's."""
        try:
            return await self.queries.ask(what, *args, **kwargs)
        except BatchordError as error:
            raise HTTPError(status_of(error), str(error)) from error

    async def find(self) -> dict[str, Any]:
        """Return the page of batches that the query asks for."""
        limit = self.get_argument("limit", PAGE, type=int)
        if not 1 <= limit <= MOST:
            raise HTTPError(400, f"limit is {limit}: it must be 1 to {MOST}")
        names = self.get_argument("status", "", escape=False)
        try:
            statuses = [BatchStatus(name) for name in names.split(",") if name]
        except ValueError:
            known = ", ".join(status for status in BatchStatus if status != "validating")
            raise HTTPError(400, f"unknown status: it must be of {known}") from None
        after = self.get_argument("after", None, escape=False) or None
        text = self.get_argument("text", "", escape=False)
        return await self.ask(
            self.queries.find,
            limit=limit,
            after=after,
            statuses=statuses,
            text=text,
            with_failures=self.get_argument("failures", "") == "1",
        )

    def budget(self) -> Budget | None:
        """Return the budget that the query gives in `usd` and `tokens`; None if it gives none."""
        usd, tokens = (self.get_argument(name, "") for name in ("usd", "tokens"))
        if not usd and not tokens:
            return None
        try:
            return Budget(usd=float(usd) if usd else None, tokens=int(tokens) if tokens else None)
        except ValueError:
            raise HTTPError(400, "budget: usd is a number, tokens a whole number") from None

    async def batch(self, batch_id: str) -> dict[str, Any]:
        """Return one batch, and the workers that run its items."""
        found = await self.ask(self.queries.batch, batch_id)
        known = self.application.events.state.tasks
        for item in (item for group in found["failures"] for item in group["first"]):
            task = task_id(batch_id, range(item["index"], item["index"] + 1))
            item["task"] = task if task in known else None
        # A task that was refused its item says no more: without items that run, nobody works on it.
        return found | {"workers": self._workers(batch_id) if found["running"] else []}

    def _workers(self, batch_id: str) -> list[str]:
        """Return the workers that run items of the batch, by the latest tasks that Flower knows."""
        latest = islice(self.application.events.state.tasks_by_time(), _TASKS_LOOKED_AT)
        return sorted(
            {
                task.worker.hostname
                for _, task in latest
                if task.state == "STARTED" and task.worker and batch_id in str(task.kwargs)
            }
        )


def _in_plain_text(handler: Any, status_code: int, **kwargs: Any) -> None:
    """Say what went wrong, as Flower's API does."""
    if status_code == 401 and handler.application.options.basic_auth:
        # A browser that has logged in on a page sends its password here once it is asked.
        handler.set_header("WWW-Authenticate", 'Basic realm="flower"')
    BaseApiHandler.write_error(handler, status_code, **kwargs)


class _Page(_AtTheDesk, BaseHandler):
    """A page of Batchord's, or its data, for users who may see Flower's pages."""


class Api(_AtTheDesk, BaseApiHandler):
    """Beside Flower's API, and as closed: 401 without a login that is configured."""

    write_error = _in_plain_text


class BatchesPage(_Page):
    """The list. It fetches its rows itself."""

    @authenticated
    def get(self) -> None:
        self.render("batches.html")


class BatchPage(_Page):
    """One batch. Whether there is one is known when it fetches it."""

    @authenticated
    async def get(self, batch_id: str) -> None:
        await self.ask(self.queries.total, batch_id)  # 404 without the batch
        options = self.application.options
        self.render(
            "batch.html",
            batch_id=batch_id,
            read_only=options.read_only,
            may_act=bool(options.basic_auth or options.auth or self.unauthenticated_api),
            payloads=self.queries.payloads,
        )


class _Data(_Page):
    """A request of Batchord's pages; errors are answered in plain text."""

    write_error = _in_plain_text

    def get_login_url(self) -> str:
        """Raise 401 for a script, which can't log in: it shows the message on the page."""
        raise HTTPError(401, "Log in again: reload the page")


class _Events(_Data):
    """A page's data, pushed to it as it changes."""

    async def places(self, ids: Sequence[str]) -> Mapping[str, str]:
        return await self.ask(self.queries.reader.last_events, ids)


class BatchesEvents(_Events):
    """The rows of the list, again and again."""

    @authenticated
    async def get(self) -> None:
        await EventStream(self, self.find, _live_ones, self.places).run()


class BatchEvents(_Events):
    """The stream of data of a batch's page."""

    @authenticated
    async def get(self, batch_id: str) -> None:
        look = partial(self.batch, batch_id)
        await EventStream(self, look, lambda _: [batch_id], self.places).run()


def _live_ones(found: dict[str, Any]) -> list[str]:
    """Return the ids of a page's batches that may still change."""
    return [one["id"] for one in found["batches"] if not BatchStatus(one["status"]).ended]


class BatchesData(_Data):
    """The rows of the list."""

    @authenticated
    async def get(self) -> None:
        self.write(await self.find())


class BatchData(_Data):
    """The data of a batch's page."""

    @authenticated
    async def get(self, batch_id: str) -> None:
        self.write(await self.batch(batch_id))


class ListBatches(Api):
    """`GET /api/batches?limit=25&after=ID&status=in_progress,paused&text=...`."""

    @authenticated
    async def get(self) -> None:
        self.write(await self.find())


class GetBatch(Api):
    """`GET /api/batches/ID`."""

    @authenticated
    async def get(self, batch_id: str) -> None:
        self.write(await self.batch(batch_id))


class Act(Api):
    """`POST /api/batches/ID/cancel`, `pause`, `resume?usd=..&tokens=..`, `retry?code=...`.

    403 in read-only mode.
    """

    @authenticated
    async def post(self, batch_id: str, action: Action) -> None:
        if self.application.options.read_only:
            raise HTTPError(403, "Read only mode is enabled")
        codes = [code for code in self.get_arguments("code") if code]
        budget = self.budget() if action == "resume" else None
        by = f"flower:{_user(self)}"
        self.write(await self.ask(self.queries.act, batch_id, action, codes or None, budget, by))


def _user(handler: Any) -> str:
    """Return the name that a user has logged in with; "anyone" where no login is configured."""
    kind, _, token = handler.request.headers.get("Authorization", "").partition(" ")
    if handler.application.options.basic_auth and kind == "Basic":
        return b64decode(token).decode().partition(":")[0]
    user = handler.current_user
    return "anyone" if user is True else str(user)


class Download(_Data):
    """Results or errors as JSON lines in input order, of what has ended so far.

    A few items at a time, no faster than they are taken: memory stays flat.
    """

    @authenticated
    async def get(self, batch_id: str, kind: str) -> None:
        total = await self.ask(self.queries.total, batch_id)
        if not self.queries.payloads:
            raise HTTPError(403, PAYLOADS_OFF)
        self.set_header("Content-Type", "application/jsonl; charset=UTF-8")
        name = f"{batch_id}.{kind}.jsonl"
        self.set_header("Content-Disposition", f'attachment; filename="{name}"')
        failed = kind == "errors"
        try:
            for start in range(0, total, CHUNK):
                lines = await self.ask(self.queries.lines, batch_id, start, failed=failed)
                if lines:
                    self.write(lines)
                    await self.flush()
        except StreamClosedError:
            return  # the client has gone
        except HTTPError:
            if not self._headers_written:
                raise
            # Too late for a status: a connection that is cut says that it is not whole.
            self.request.connection.stream.close()
