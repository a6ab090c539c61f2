"""Calls of a client about the deployment: its batches, chains, workers and their health."""

from datetime import datetime
from typing import Final

from batchord.ledger.core.arguments import check_time
from batchord.ledger.lifecycle.diagnostics import Finding, checkup
from batchord.ledger.models import BatchRecord, ChainRecord
from batchord.ledger.storage.audit import Audit, AuditLine
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.failures import FailureSum, failures_of
from batchord.ledger.storage.fleet import Fleet
from batchord.producer.async_edge import AsyncEdge, async_form

#: Batches that are read at a time.
_PAGE: Final = 500

#: Named here, as the class has a method `list`.
Records = list[BatchRecord]
Findings = list[Finding]
AuditLines = list[AuditLine]
FailureSums = list[FailureSum]


class DeploymentQueries:
    """The calls of a client that are about no batch of its own."""

    _reader: BatchReader
    _store: BatchStore
    _edge: AsyncEdge

    def list(self, *, limit: int = 20, after: str | None = None) -> Records:
        """Return up to `limit` batches, newest first; the next page begins `after` the last id.

        Raises:
            UnknownBatch: `after` is not a batch's id.
            TypeError, ValueError: `limit` is not an int of at least 1.
        """
        return self._reader.newest(limit=limit, after=after)

    alist = async_form(list)

    def purge(self, batch_id: str) -> bool:
        """Delete an ended batch before its results expire; False if it has not ended.

        Raises:
            UnknownBatch: the ledger has no batch of this id.
        """
        record = self._reader.record(batch_id)
        total, key = record.request_counts.total, record.idempotency_key
        gone = self._store.purge(batch_id, total=total, key=key)
        if gone:
            Audit(self._store).note_purge(batch_id)
        return gone

    apurge = async_form(purge)

    def audit(self, batch_id: str | None = None) -> AuditLines:
        """Return who paused, resumed, cancelled or retried a batch, the oldest line first.

        None: who purged which batches lately.

        Raises:
            UnknownBatch: the ledger has no batch of this id.
        """
        if batch_id is None:
            return Audit(self._store).purges()
        self._reader.status(batch_id)
        return Audit(self._store).of(batch_id)

    aaudit = async_form(audit)

    def failures(self, *, limit: int = 100) -> FailureSums:
        """Return what has failed in the newest `limit` batches with failed items, most items first.

        Raises:
            TypeError, ValueError: `limit` is not an int of at least 1.
        """
        return failures_of(self._store, limit=limit)

    afailures = async_form(failures)

    def ended_before(self, when: datetime) -> Records:
        """Return the batches that ended before this time, newest first.

        Raises:
            TypeError, ValueError: `when` is not a datetime with a time zone.
        """
        check_time("when", when)
        found: Records = []
        after: str | None = None
        while page := self.list(limit=_PAGE, after=after):
            found += [one for one in page if one.ended_at is not None and one.ended_at < when]
            after = page[-1].id
        return found

    aended_before = async_form(ended_before)

    def chains(self) -> dict[str, ChainRecord]:
        """Return the chains that live workers have, by name.

        While no worker is alive: those that workers have had.
        """
        known, live = self._reader.chains(), self.fleet().chains()
        return {name: known[name] for name in live or known if name in known}

    achains = async_form(chains)

    def fleet(self) -> Fleet:
        """Return the workers that are alive, and the chains that each has."""
        return self._reader.fleet()

    afleet = async_form(fleet)

    def checkup(self) -> Findings:
        """Check the deployment; each finding says what to change."""
        return checkup(self._store)

    acheckup = async_form(checkup)

    def ping(self) -> None:
        """Return if Redis answers, else raise `LedgerUnavailable`."""
        self._store.ping()

    aping = async_form(ping)
