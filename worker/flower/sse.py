"""Server-sent events that push a page's data to its viewers.

A batch's stream of events says when there is news of it; the page is pushed the data that it would
get if it asked. So a viewer that is slow, or was away, gets the current state.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from tornado.escape import json_encode
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler

#: Seconds between two looks at whether there is news, and so between two pushes.
STEP: Final = 0.5

#: Seconds after which a page is looked at without news: rates fade, workers come and go.
AFRESH: Final = 2.0

#: Seconds after which something is said to a page for which nothing changes, so that what is
#: between does not take the connection for dead.
SILENCE: Final = 15.0

#: Seconds after which a page must ask anew, by itself: whether it still may is looked at then.
LONGEST: Final = 300.0

#: Milliseconds after which a browser asks anew.
_RETRY: Final = 1_000

_NOT_FOUND: Final = 404

Look = Callable[[], Awaitable[dict[str, Any]]]


class EventStream:
    """Pushes to one page, until it goes away.

    `look` finds what the page shows, `ids` the batches in it, and `places` where their events
    stand.
    """

    def __init__(
        self,
        handler: RequestHandler,
        look: Look,
        ids: Callable[[dict[str, Any]], Sequence[str]],
        places: Callable[[Sequence[str]], Awaitable[Mapping[str, str]]],
    ) -> None:
        self._handler = handler
        self._look = look
        self._ids = ids
        self._places = places
        #: Where the events of each batch in it stood at the last question.
        self._seen: Mapping[str, str] = {}
        self._said_at = 0.0

    async def run(self) -> None:
        """Push until the page has gone, or is to ask anew.

        Raises:
            HTTPError: at the first look. Later ones tell the page, as an event `trouble`.
        """
        ends_at = time.monotonic() + LONGEST
        told = await self._look()
        self._begin()
        try:
            await self._say("message", json_encode(told))
            while time.monotonic() < ends_at:
                try:
                    await self._news(self._ids(told))
                    found = await self._look()
                except HTTPError as error:
                    await self._say("trouble", error.get_message() or str(error))
                    if error.status_code == _NOT_FOUND:
                        return
                    await asyncio.sleep(AFRESH)
                    continue
                if found != told:
                    told = found
                    await self._say("message", json_encode(told))
                elif time.monotonic() > self._said_at + SILENCE:
                    await self._write(":\n\n")
        except StreamClosedError:
            return

    def _begin(self) -> None:
        self._handler.set_header("Content-Type", "text/event-stream; charset=UTF-8")
        self._handler.set_header("Cache-Control", "no-store")
        self._handler.set_header("X-Accel-Buffering", "no")  # nginx would keep it for itself
        self._handler.write(f"retry: {_RETRY}\n")

    async def _news(self, ids: Sequence[str]) -> None:
        """Return when something has happened to one of the batches, or it is time to look."""
        look_at = time.monotonic() + AFRESH
        while time.monotonic() < look_at:
            await asyncio.sleep(STEP)
            before, self._seen = self._seen, await self._places(ids)
            # One that is new here, too: what happened while it was looked at went unseen.
            if any(before.get(one) != place for one, place in self._seen.items()):
                return

    async def _say(self, event: str, text: str) -> None:
        lines = "".join(f"data: {line}\n" for line in text.splitlines())
        await self._write(f"event: {event}\n{lines}\n")

    async def _write(self, text: str) -> None:
        self._said_at = time.monotonic()
        self._handler.write(text)
        await self._handler.flush()
