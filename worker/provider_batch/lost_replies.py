"""Files and batches at the provider that were never noted here: find them, remove duplicates.

A provider may list a batch seconds after it has created it. So the list is looked through several
times before a batch is created again; after that, for as long as the part is out, whatever else
the provider has of the part is cancelled. A file costs nothing: it is looked for once before it is
uploaded again, and duplicates that are listed later are deleted.
"""

import logging
from typing import Final

from batchord.chains.errors import ChainError, RetryLater
from batchord.chains.provider_batch.api import ENDED, BatchAPI, ProviderBatch
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.provider_parts import ProviderPart, ProviderParts
from batchord.worker.provider_batch.request_file import NotNow

logger = logging.getLogger(__name__)

#: How often the list is looked through before a batch is created again. The waits between double,
#: from `provider_poll` on: with 30 s, the last look is after 210 s.
LOOKS: Final = 4
#: Seconds between two calls for the same part, at most, unless the provider asks for more.
_PATIENCE: Final = 300.0


class LostReplies:
    """The search for the results of one batch's provider calls whose reply may be lost."""

    def __init__(
        self, api: BatchAPI, parts: ProviderParts, store: BatchStore, batch_id: str, poll: float
    ):
        self._api = api
        self._parts = parts
        self._store = store
        self._id = batch_id
        self._poll = poll

    def find(self, part: ProviderPart) -> str | None:
        """Return the provider's batch of a part that may have been created, and note it.

        None: no look has found it. A batch that shows later is for `cancel_orphans`.

        Raises:
            NotNow: it is not found yet; a later turn looks again.
        """
        found = self._api.find_all(self._id, part.number, part.begun)
        if found:
            # The others are duplicates.
            self._parts.note(self._id, part.number, "again", 1)
            kept = self._parts.note(self._id, part.number, "batch", _best(found).id)
            logger.warning("found again batch=%s part=%s", self._id, part.number)
            return kept
        if part.looks + 1 < LOOKS:
            self._parts.set(self._id, part.number, "looks", part.looks + 1)
            self.wait(part, self._poll * 2.0**part.looks)
            raise NotNow
        # Before anything is created again: a crash must not forget it.
        self._parts.note(self._id, part.number, "again", 1)
        self._parts.forget(self._id, part.number, "looks")
        return None

    def cancel_orphans(self, part: ProviderPart) -> None:
        """Cancel what the provider has of the part besides its noted batch."""
        if not part.again:
            return
        try:
            for each in self._api.find_all(self._id, part.number, part.begun):
                if each.id != part.batch_id and each.status not in {*ENDED, "cancelling"}:
                    self._api.cancel(each.id)
                    logger.warning("orphan cancelled batch=%s part=%s", self._id, part.number)
        except ChainError as error:
            # The answers of the noted batch do not wait for it.
            logger.warning("orphans not looked for batch=%s: %s", self._id, error.code)

    def find_file(self, part: ProviderPart) -> str | None:
        """Return the provider's file of a part that may have been uploaded, if it is listed."""
        found = self._api.find_files(self.file_name(part.number), part.begun)
        if len(found) != 1:
            # Those that are not used are for `delete_orphans`.
            self._parts.note(self._id, part.number, "uploaded_again", 1)
        return found[0] if found else None

    def delete_orphans(self, part: ProviderPart) -> None:
        """Delete the files that the provider has of the part besides its noted one."""
        if not part.uploaded_again:
            return
        try:
            for each in self._api.find_files(self.file_name(part.number), part.begun):
                if each != part.file_id:
                    self._api.delete_file(each)
                    logger.warning("orphan deleted batch=%s part=%s", self._id, part.number)
        except ChainError as error:
            logger.warning("orphans not looked for batch=%s: %s", self._id, error.code)

    def file_name(self, number: int) -> str:
        """Return the name of a part's file."""
        return f"{self._id}-part-{number}.jsonl"

    def put_off(self, part: ProviderPart, error: RetryLater) -> None:
        """Call for the part again when the provider wants it, or after a wait that doubles."""
        wait = min(_PATIENCE, self._poll * 2.0 ** min(part.setbacks, 20))
        self.wait(part, wait if error.after is None else error.after)
        self._parts.set(self._id, part.number, "setbacks", part.setbacks + 1)
        if error.http_status == 429:
            # It was refused: nothing was created that could show later.
            self._parts.forget(self._id, part.number, "creating")

    def wait(self, part: ProviderPart, seconds: float) -> None:
        """Do nothing about the part for so long."""
        due = self._store.now() + seconds
        self._parts.set(self._id, part.number, "not_before", int(due * 1000))


def _best(found: list[ProviderBatch]) -> ProviderBatch:
    """Return the batch that is nearest to its answers."""
    stopped = ("cancelled", "cancelling", "expired")
    return max(
        found,
        key=lambda each: (each.status not in stopped, each.status == "completed", each.done),
    )
