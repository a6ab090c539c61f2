"""One reconciling pass over a batch in provider mode: all that can be done now, without waiting."""

import logging
import secrets
import threading
from functools import cached_property
from typing import Final

from celery import Celery

from batchord.chains.errors import BadSpec, ChainError, ChainNotFound, RetryLater
from batchord.chains.explain import explain
from batchord.chains.provider_batch.api import ENDED, BatchAPI, ProviderBatch
from batchord.chains.steps.offline_call import NotOffline, Offline, offline
from batchord.ledger.broker.publisher import publish_shards
from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.lifecycle.batch_control import BatchControl
from batchord.ledger.models import BatchStatus, PauseReason
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.item_leases import ItemLeases
from batchord.ledger.storage.provider_parts import Field, ProviderPart, ProviderParts
from batchord.worker.execution.worker_context import WorkerContext
from batchord.worker.provider_batch.answer_importer import AnswerImporter
from batchord.worker.provider_batch.item_claims import ItemClaims
from batchord.worker.provider_batch.lost_replies import LostReplies
from batchord.worker.provider_batch.request_file import NotNow, OperatorWanted, RequestFileBuilder
from batchord.worker.tasks import close_shard

logger = logging.getLogger(__name__)

#: What the provider says of a batch that it has no room for now.
_NO_ROOM: Final = "token_limit_exceeded"
#: Seconds until it is asked again, at most; less the first times.
_PATIENCE: Final = 3600.0


class Reconciler:
    """A batch, its parts and their provider, for one turn of the worker that holds it.

    Each step notes its intent, acts, and notes the result. A crash in between leaves the intent
    alone, and the next turn asks the provider whether the step was done.
    """

    def __init__(
        self, app: Celery, runtime: WorkerContext, batch_id: str, lost: threading.Event
    ) -> None:
        self._app = app
        self._runtime = runtime
        self._settings = runtime.settings
        self._id = batch_id
        self._lost = lost
        self._token = secrets.token_hex(8)
        self._parts = ProviderParts(runtime.store)
        self._reader = BatchReader(runtime.store)
        self._control = BatchControl(app, runtime.store)
        self._record = self._reader.record(batch_id)

    @cached_property
    def _plan(self) -> Offline:
        try:
            return offline(self._runtime.chains.get(self._record.chain, self._id).chain)
        except BadSpec as error:
            raise ChainError(str(error), code="bad_spec") from None
        except ChainNotFound as error:
            raise ChainError(str(error), code="chain_not_found") from None
        except NotOffline as error:
            raise ChainError(
                f"chain {self._record.chain!r} cannot be sent, as {error}", code="not_offline"
            ) from None

    @property
    def _stopping(self) -> bool:
        """Whether it was cancelled, or its completion window is over."""
        return self._record.status in (BatchStatus.CANCELLING, BatchStatus.FINALIZING)

    def turn(self) -> None:
        """Look at what is out, and send what is not."""
        if self._record.status.ended or self._record.status is BatchStatus.VALIDATING:
            return
        with BatchAPI() as self._api:
            self._item_claims = ItemClaims(self._runtime, self._id)
            store, poll = self._runtime.store, self._settings.provider_poll
            self._lost_replies = LostReplies(self._api, self._parts, store, self._id, poll)
            try:
                self._advance()
            except (NotNow, RetryLater) as error:
                logger.info("put off batch=%s: %s", self._id, type(error).__name__)
            except OperatorWanted as wanted:
                self._pause(wanted.reason)
            except ChainError as error:
                # Nothing of it can be sent until someone acts, whatever the provider calls it.
                self._pause(PauseReason(code=error.code, message=explain(error).message))
            finally:
                self._item_claims.close()
        if self._stopping and not any(self._parts.out(self._id)):
            self._control.wind_up(self._id)

    def _advance(self) -> None:
        known = self._parts.all(self._id)
        due = self._stopping or self._parts.look_is_due(self._id, self._settings.provider_poll)
        problem: Exception | None = None
        self._done = 0
        for part in known:
            try:
                if part.batch_id is not None and not part.closed and due:
                    self._follow(part, part.batch_id)
                elif part.batch_id is None and not part.closed:
                    self._send(part)
            except (NotNow, RetryLater) as error:
                problem = error  # the other parts have their turn
            except ChainError as error:
                if not self._stopping:
                    raise
                logger.warning("given up batch=%s part=%s: %s", self._id, part.number, error.code)
                self._close(part)
        if due:
            self._parts.progress(self._id, self._done)
        if problem is not None:
            raise problem
        if self._record.status is BatchStatus.IN_PROGRESS:
            self._begin(self._parts.all(self._id))

    def _begin(self, known: list[ProviderPart]) -> None:
        """Send what is in no part yet."""
        total = self._record.request_counts.total
        start = known[-1].stop if known else 0
        while start < total:
            if self._record.budget is not None and any(self._parts.out(self._id)):
                # Then it is exceeded by no more than one part.
                return
            number = len(known)
            self._post(number, start, None)
            known = self._parts.all(self._id)
            start = known[-1].stop
            if len(known) == number:
                raise NotNow

    def _send(self, part: ProviderPart) -> None:
        """Go on with a part that has no batch at the provider, as far as is known."""
        if self._stopping and not part.creating:
            self._close(part)
        elif self._runtime.store.now() < part.not_before:
            return
        elif self._stopping:
            found = self._lost_replies.find(part)
            if found is None:
                self._close(part)
            else:
                self._follow(part, found)
        elif self._record.status is BatchStatus.IN_PROGRESS:
            self._post(part.number, part.start, part)

    def _post(self, number: int, start: int, part: ProviderPart | None) -> None:
        """Send the part; if the provider has no time for it now, send it later."""
        try:
            self._try_to_post(number, start, part)
        except RetryLater as error:
            known = self._parts.all(self._id)
            if number < len(known) and not self._lost.is_set():
                self._lost_replies.put_off(known[number], error)
            raise

    def _try_to_post(self, number: int, start: int, part: ProviderPart | None) -> None:
        """Build, upload and create; nothing that may have been done before is done blindly."""
        file_id = None if part is None else part.file_id
        if file_id is None:
            file_id = self._upload(number, start, part)
        part = self._parts.all(self._id)[number]
        if file_id is None:
            self._close(part)  # no item of it came to a request
            return
        attempt = self._note(number, "creating", self._token)
        # Ours, if nobody was about to before.
        if attempt != self._token and self._lost_replies.find(part) is not None:
            return
        self._still_ours()
        crash_point("before-create")
        created = self._api.create(file_id, self._plan.call.endpoint, self._id, number, attempt)
        crash_point("after-create")
        kept = self._parts.note(self._id, number, "batch", created.id)
        logger.info("sent batch=%s part=%s provider_batch=%s", self._id, number, created.id)
        if kept != created.id:
            # We stood still meanwhile, and someone else has sent it.
            self._api.cancel(created.id)

    def _upload(self, number: int, start: int, part: ProviderPart | None) -> str | None:
        name = self._lost_replies.file_name(number)
        if part is not None and part.uploading:
            found = self._lost_replies.find_file(part)
            if found is not None:
                return self._note(number, "file", found)
        outbox = RequestFileBuilder(
            self._item_claims, self._parts, self._settings, batch_id=self._id, plan=self._plan
        )
        total = self._record.request_counts.total
        built = outbox.build(number, start, total, part)
        with built.file:
            if not built.requests:
                return None
            self._note(number, "uploading", self._token)
            self._still_ours()
            crash_point("before-upload")
            uploaded = self._api.upload(name, built.file)
            crash_point("after-upload")
        return self._note(number, "file", uploaded)

    def _note(self, number: int, field: Field, value: str) -> str:
        """Note it unless something stands there, and return what does."""
        kept = self._parts.note(self._id, number, field, value)
        if not kept:
            raise NotNow  # the batch is over
        return kept

    def _still_ours(self) -> None:
        """Raise NotNow if another worker has taken over, or the batch was stopped meanwhile."""
        if self._lost.is_set() or self._reader.status(self._id) is not BatchStatus.IN_PROGRESS:
            raise NotNow

    def _follow(self, part: ProviderPart, provider_batch: str) -> None:
        """Look how the provider's batch stands; take what it has answered once it has ended."""
        self._lost_replies.cancel_orphans(part)
        self._lost_replies.delete_orphans(part)
        found = self._api.retrieve(provider_batch)
        if found.status not in ENDED:
            self._done += found.done
            if self._stopping and found.status != "cancelling":
                self._api.cancel(provider_batch)
            return
        if found.status == "failed":
            self._refused(part, found)
            return
        live = self._record.provider_retry == "live" and not self._stopping
        inbox = AnswerImporter(
            *(self._item_claims, self._parts, self._reader),
            batch_id=self._id,
            plan=self._plan,
            live=live,
        )
        for file_id in found.files:
            inbox.take(part, self._api.lines(file_id))
        if not live and not self._stopping:
            inbox.take_silence(part, found.status)
        logger.info("taken batch=%s part=%s status=%s", self._id, part.number, found.status)
        self._close(part)

    def _refused(self, part: ProviderPart, found: ProviderBatch) -> None:
        """Prepare to send a part again of which the provider has run nothing."""
        if self._stopping:
            self._close(part)
        elif found.code == _NO_ROOM:
            wait = 2 * self._settings.provider_poll * 2.0 ** min(part.tries, 20)
            due = self._runtime.store.now() + min(_PATIENCE, wait)
            self._parts.forget(self._id, part.number, "batch", "creating", "not_before", "tries")
            self._parts.note(self._id, part.number, "not_before", int(due * 1000))
            self._parts.note(self._id, part.number, "tries", part.tries + 1)
        else:
            # With its file, in which something may be wrong.
            self._parts.forget(self._id, part.number, "batch", "creating", "file", "uploading")
            message = found.message or "the provider refused the batch as a whole"
            error = ChainError(message, code=found.code or "bad_request")
            self._pause(PauseReason(code=error.code, message=explain(error).message))

    def _close(self, part: ProviderPart) -> None:
        """Close a part: its complete shards are closed, and its missing items run live.

        In this order: once all is dealt the sweep mends what a crash leaves, and a batch that has
        ended has no part that is out.
        """
        complete = []
        if not self._stopping:
            for shard in self._parts.shards(self._id, part):
                if self._parts.deal(self._id, shard.number):
                    complete.append(shard.number)
                crash_point("half-dealt")
        self._parts.note(self._id, part.number, "closed", 1)
        for number in complete:
            close_shard(self._app, self._runtime, self._id, number)
        publish_shards(self._app, self._runtime.store, self._id)

    def _pause(self, reason: PauseReason) -> None:
        ItemLeases(self._runtime.store).pause(self._id, reason)
        logger.warning("batch paused batch=%s code=%s", self._id, reason.code)
