"""The dispatcher of the outbox: sends webhooks, and callbacks that a crash left behind.

A thread in every worker and not a part of the sweep, so that a receiver that is slow holds nothing
up. What is due is in the ledger; whichever worker comes first takes it.
"""

import asyncio
import json
import logging
import random
import ssl
import threading
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

from celery import Celery
from kombu.exceptions import OperationalError

from batchord.chains.errors import BatchordError
from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.errors import concerns_all
from batchord.ledger.lifecycle.completion_callback import publish_callback
from batchord.ledger.lifecycle.webhook_policy import (
    SECRET_VARIABLE,
    BadWebhook,
    Undelivered,
    checked_url,
    deployment_url,
    signers,
    signers_of,
)
from batchord.ledger.models import BatchRecord
from batchord.ledger.storage.outbox import ON_COMPLETE, Outbox, OutboxEntry
from batchord.worker.execution.worker_context import WorkerContext

logger = logging.getLogger(__name__)

#: Webhooks in flight at a time.
AT_ONCE: Final = 32
#: How much longer each wait is than the one before, and the longest of them, in seconds.
GROWTH: Final = 5
LONGEST: Final = 24 * 3600.0
#: Seconds beyond its timeout after which a try belongs to a process that is dead.
MARGIN: Final = 15.0
#: Seconds after which an entry that could not be read or kept is looked at again.
DAMAGED: Final = 300.0


class Dispatcher:
    """A thread that delivers due entries, each `sweep_interval` and after a commit here."""

    def __init__(self, app: Celery, runtime: WorkerContext) -> None:
        self._app = app
        self._store = runtime.store
        self._outbox = Outbox(runtime.store)
        self._settings = runtime.settings
        self._url = deployment_url(runtime.settings)
        self._signers = signers(runtime.settings.webhook_secret)
        self._ended = runtime.ended
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="outbox", daemon=True)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        # Once: reading the system's authorities takes longer than a webhook.
        return ssl.create_default_context()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; an unfinished try gets a moment, else another worker tries again."""
        self._stop.set()
        self._ended.set()
        self._thread.join(timeout=2)

    def _loop(self) -> None:
        with asyncio.Runner() as runner:
            while not self._stop.is_set():
                try:
                    while not self._stop.is_set() and self._turn(runner):
                        pass
                except BatchordError as error:
                    logger.warning("outbox put off: %s", error)
                except BaseException as error:  # noqa: BLE001
                    # Whatever it was, the next turn must come. Its text may hold a URL.
                    logger.error("outbox failed: %s", type(error).__name__)
                self._ended.wait(self._settings.sweep_interval)
                self._ended.clear()

    def _turn(self, runner: asyncio.Runner) -> bool:
        """Deliver some due entries; return whether any was due."""
        due = self._outbox.due(limit=AT_ONCE)
        taken = [entry for member in due if (entry := self._taken(member)) is not None]
        if taken:
            runner.run(self._tell_all(taken))
        return bool(due)

    def _taken(self, member: str) -> OutboxEntry | None:
        """As `_take`; a damaged entry is deferred, and holds up no other."""
        try:
            return self._take(member)
        except Exception as error:
            # The broker is the same Redis.
            if concerns_all(error) or isinstance(error, OperationalError):
                raise
            logger.error("outbox entry put off %r: %s", member, type(error).__name__)
            self._outbox.leave(member, DAMAGED)
            return None

    def _take(self, member: str) -> OutboxEntry | None:
        """Take a webhook for one try; publish a callback, or drop a webhook without a URL, now."""
        batch_id, what = member.split(" ", 1)
        if what == ON_COMPLETE:
            self._call_back(batch_id, member)
            return None
        hold, tries = self._settings.webhook_timeout + MARGIN, self._settings.webhook_tries
        entry = self._outbox.take(member, hold=hold, tries=tries)
        if entry is not None and not entry.tries:
            told = f"batch={batch_id} end={what}"
            logger.warning("webhook given up %s: its sender died in the last try", told)
            return None
        if entry is not None and entry.url is None and self._url is None:
            self._outbox.done(entry)
            return None
        return entry

    async def _tell_all(self, entries: list[OutboxEntry]) -> None:
        """Make one try of each, side by side, and wait for all, also if a try fails.

        The next try of an entry whose end could not be noted is due once its hold is over.
        """
        told = await asyncio.gather(*map(self._tell, entries), return_exceptions=True)
        for entry, failed in zip(entries, told, strict=True):
            if failed is not None:
                if concerns_all(failed) or not isinstance(failed, Exception):
                    raise failed
                logger.error("outbox entry not ended %r: %s", entry.member, type(failed).__name__)

    def _call_back(self, batch_id: str, member: str) -> None:
        try:
            if not publish_callback(self._app, self._store, batch_id):
                self._outbox.forget(member)
        except (TypeError, ValueError) as error:
            # It was checked when it was submitted; still, nothing may be tried for ever.
            logger.error("callback dropped batch=%s: %s", batch_id, type(error).__name__)
            self._outbox.forget(member)

    async def _tell(self, entry: OutboxEntry) -> None:
        """Make one try, and record its result.

        The ledger is asked on this loop, and not in a thread for which the process would have to
        wait at its end: nothing else runs here.
        """
        told = f"batch={entry.record.id} end={entry.end} try={entry.tries}"
        crash_point("before-webhook")
        try:
            status = await self._send(entry)
        except (BadWebhook, Undelivered) as error:
            final = getattr(error, "final", False) or entry.tries >= self._settings.webhook_tries
            logger.warning("webhook %s %s: %s", "given up" if final else "failed", told, error)
            if final:
                self._outbox.done(entry)
            else:
                self._outbox.put_off(entry, self._wait(entry.tries))
            return
        crash_point("after-webhook")
        logger.info("webhook sent %s answer=%s", told, status)
        self._outbox.done(entry)

    async def _send(self, entry: OutboxEntry) -> int:
        # On first use: most deployments have no webhooks, and it takes a quarter of their start.
        from batchord.worker.notifications.webhook_sender import send

        settings = self._settings
        url = checked_url(entry.url or self._url or "", settings)
        signers_ = signers_of(entry.secret_env) if entry.secret_env else self._signers
        if not signers_:
            raise BadWebhook(f"{SECRET_VARIABLE} is not set where this worker is")
        name = f"{entry.record.id}-{entry.end}"
        body = json.dumps(payload(entry.record, name), ensure_ascii=False)
        now = datetime.now(UTC)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "batchord",
            "webhook-id": name,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(each.sign(name, now, body) for each in signers_),
        }
        return await send(
            url,
            body.encode(),
            headers,
            tls=self._tls,
            timeout=settings.webhook_timeout,
            loopback=settings.webhook_allow_loopback,
        )

    def _wait(self, tries: int) -> float:
        wait: float = self._settings.webhook_backoff * GROWTH ** (tries - 1)
        return min(LONGEST, wait) * random.uniform(0.9, 1.1)


def payload(record: BatchRecord, name: str) -> dict[str, Any]:
    """Return what a webhook says: the batch as it ended, without a word of its items.

    It is an event of OpenAI's, too, as their SDKs unwrap it; `name` is its id. Not with why the
    batch had been paused, which may quote an input, nor with its idempotency key.
    """
    data = record.model_dump(
        mode="json", exclude={"reason", "idempotency_key", "running", "put_off"}
    )
    ended = record.ended_at or record.created_at
    return {
        "id": name,
        "object": "event",
        "created_at": int(ended.timestamp()),
        "type": f"batch.{record.status}",
        "timestamp": data["ended_at"],
        "data": data,
    }
