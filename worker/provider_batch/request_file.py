"""Requests on their way to the provider: the file of a part, built page by page."""

import re
from collections.abc import Callable
from tempfile import TemporaryFile
from typing import IO, Any, Final, NamedTuple

from batchord.chains import RegisteredChain
from batchord.chains.provider_batch.file_format import request_line
from batchord.chains.steps.offline_call import Offline
from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.models import ItemError, PauseReason
from batchord.ledger.settings import Settings
from batchord.ledger.storage.item_transitions import Claim
from batchord.ledger.storage.provider_parts import ProviderPart, ProviderParts
from batchord.worker.execution.attempt_result import failed
from batchord.worker.execution.item_input import config_of, input_of
from batchord.worker.provider_batch.item_claims import ItemClaims, Ran, pages

_INDEX: Final = re.compile(r"[0-9]{1,10}")
#: Items whose requests are in memory at a time.
_AT_ONCE: Final = 200


class NotNow(Exception):
    """The next turn goes on: another worker's lease has not ended, or the batch was stopped."""


class OperatorWanted(Exception):
    """No request can be built until a person acts."""

    def __init__(self, reason: PauseReason) -> None:
        super().__init__(reason.code)
        self.reason = reason


class Built(NamedTuple):
    """A file of requests, and their number; its receiver closes the file."""

    file: IO[bytes]
    requests: int


def custom_id(batch_id: str, index: int) -> str:
    """Return the custom_id by which the provider knows an item."""
    return f"{batch_id}:{index}"


def index_of(batch_id: str, name: str) -> int | None:
    """Parse a custom_id to an item's index; None if it is not of this batch."""
    batch, _, index = name.partition(":")
    return int(index) if batch == batch_id and _INDEX.fullmatch(index) else None


class RequestFileBuilder:
    """Builds the files of one batch: as many items as fit, or those that the part has already.

    Items that fail on the way to their request are settled, and all others handed back, as if they
    had not been claimed: a crash amid this leaves a part that is built again.
    """

    def __init__(
        self,
        item_claims: ItemClaims,
        parts: ProviderParts,
        settings: Settings,
        *,
        batch_id: str,
        plan: Offline,
    ) -> None:
        self._item_claims = item_claims
        self._parts = parts
        self._settings = settings
        self._batch_id = batch_id
        self._plan = plan

    def build(self, number: int, start: int, total: int, known: ProviderPart | None) -> Built:
        """Return the file of the part that begins at `start`; the part is in the ledger by then.

        Raises:
            NotNow, OperatorWanted.
        """
        file = TemporaryFile()  # noqa: SIM115  # its receiver closes it
        try:
            return Built(file, self._fill(file, number, start, total, known))
        except BaseException:
            file.close()
            raise

    def _fill(
        self, file: IO[bytes], number: int, start: int, total: int, known: ProviderPart | None
    ) -> int:
        count, at = 0, start
        # What the part has, it keeps: someone may have uploaded it so.
        bound = start if known is None else known.stop
        # Nothing is added once it may have been uploaded.
        end = bound if known is not None and known.uploading else total
        while at < end:
            room = self._settings.provider_requests - count
            stop = bound if at < bound else min(end, at + room)
            if stop <= at:
                break
            page = next(pages(at, stop, _AT_ONCE))
            ran = self._requests(page)
            lines = self._lines(ran)
            space = None if at < bound else self._settings.provider_bytes - file.tell()
            fits = _fitting(page, lines, space)
            try:
                if not self._parts.extend(self._batch_id, number, start, fits):
                    raise NotNow
                self._settle([one for one in ran if one.claim_request.index < fits], number)
            finally:
                # What was settled is let go of already.
                self._item_claims.release(ran)
            for index in range(at, fits):
                if index in lines:
                    file.write(lines[index])
                    count += 1
            at = fits
            crash_point("half-built")
            if fits < page.stop:
                break
        return count

    def _requests(self, page: range) -> list[Ran]:
        """Run the steps before the call, of each item that has no outcome."""
        ran: list[Ran] = []
        for some in self._item_claims.run(page, self._request_of):
            # What has its request needs no claim any more, and those that come now run alone.
            self._item_claims.release([one for one in some if one.ended and not one.ended.error])
            ran += some
        reason = next(filter(None, map(_operator_wanted, ran)), None)
        verdicts = {one.claim.verdict for one in ran}
        if reason is not None or verdicts & {"held", "stopped", "unknown"}:
            self._item_claims.release(ran)
            if reason is not None:
                raise OperatorWanted(reason)
            raise NotNow
        return ran

    def _request_of(self, index: int) -> Callable[[RegisteredChain, Claim], Any]:
        async def request(chain: RegisteredChain, claim: Claim) -> dict[str, Any]:
            return await self._plan.request(input_of(chain, claim), config_of(claim))

        return request

    def _lines(self, ran: list[Ran]) -> dict[int, bytes]:
        """Return the request lines by index; a request too long for any file becomes an error."""
        lines = {}
        for place, one in enumerate(ran):
            if one.ended is None or one.ended.error is not None:
                continue
            name = custom_id(self._batch_id, one.claim_request.index)
            line = request_line(name, self._plan.call.endpoint, one.ended.output)
            if len(line) <= self._settings.provider_bytes:
                lines[one.claim_request.index] = line
            else:
                ran[place] = self._too_long(one)
        return lines

    def _too_long(self, one: Ran) -> Ran:
        """Run the claimed item once more, with `request_too_large` as its error."""
        error = ItemError(
            code="request_too_large",
            message=f"its request is larger than {self._settings.provider_bytes:,} bytes "
            "(BATCHORD_PROVIDER_BYTES)",
            attempts=one.claim.attempt,
        )

        def runs(index: int) -> Callable[[RegisteredChain, Claim], Any]:
            async def nothing(chain: RegisteredChain, claim: Claim) -> None:
                return None

            return nothing

        again = next(
            each for some in self._item_claims.run([one.claim_request.index], runs) for each in some
        )
        return again._replace(ended=failed(error, one.usage))

    def _settle(self, ran: list[Ran], number: int) -> None:
        failures = [one for one in ran if one.ended and one.ended.error]
        if failures:
            part = self._parts.all(self._batch_id)[number]
            self._item_claims.settle(failures, self._parts.shards(self._batch_id, part))


def _operator_wanted(one: Ran) -> PauseReason | None:
    if one.ended is None or one.ended.error is None or not one.ended.needs_operator:
        return None
    error = one.ended.error
    return PauseReason(code=error.code, message=error.message, index=one.claim_request.index)


def _fitting(page: range, lines: dict[int, bytes], space: int | None) -> int:
    """Return the index at which the file is full, or the end of the page."""
    if space is None:
        return page.stop
    for index in page:
        space -= len(lines.get(index, b""))
        if space < 0:
            return index
    return page.stop
