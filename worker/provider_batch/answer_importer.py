"""Answers on their way back from the provider: each item of a part gets its outcome, once."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from batchord.chains import RegisteredChain
from batchord.chains.errors import ChainError, set_step
from batchord.chains.openai import client
from batchord.chains.provider_batch.file_format import Answer, LineError, answer_of, body_of
from batchord.chains.runtime.item_context import report_usage
from batchord.chains.steps.offline_call import Offline
from batchord.chains.usage import Usage
from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.core.sharding import Shard
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.item_transitions import Claim
from batchord.ledger.storage.keys import page_of
from batchord.ledger.storage.provider_parts import ProviderPart, ProviderParts
from batchord.worker.execution.attempt_result import AttemptResult
from batchord.worker.execution.item_input import config_of
from batchord.worker.provider_batch.item_claims import ItemClaims, pages
from batchord.worker.provider_batch.request_file import NotNow, index_of

logger = logging.getLogger(__name__)

#: Lines that are read at a time.
_LINES: Final = 500
#: Errors of an answer that a live call may not run into: it may ask again.
_MAY_FIT: Final = ("invalid_output", "length")

_SILENCE: Final = {
    "expired": ("batch_expired", "the provider's batch expired before it was run"),
    "cancelled": ("batch_cancelled", "the provider's batch was cancelled there"),
}
_NO_ANSWER: Final = ("no_answer", "the provider's batch ended without an answer to it")


class AnswerImporter:
    """Settles what the provider has answered; unless `live`, also what it has not.

    With `live`, what a live call may do better is left without an outcome. Reading a file again is
    harmless: what is settled is not claimed, and the first of several answers counts.
    """

    def __init__(
        self,
        item_claims: ItemClaims,
        parts: ProviderParts,
        reader: BatchReader,
        *,
        batch_id: str,
        plan: Offline,
        live: bool,
    ) -> None:
        self._item_claims = item_claims
        self._parts = parts
        self._reader = reader
        self._batch_id = batch_id
        self._plan = plan
        self._live = live

    def take(self, part: ProviderPart, lines: Iterable[bytes]) -> None:
        """Settle what these lines answer.

        Raises:
            NotNow: some are held by another execution; read the lines again later.
        """
        shards = self._parts.shards(self._batch_id, part)
        rest = iter(lines)
        held = unknown = 0
        while some := list(islice(rest, _LINES)):
            answers: dict[int, Answer] = {}
            for line in some:
                answer = answer_of(line)
                index = None if answer is None else index_of(self._batch_id, answer.custom_id)
                if answer is None or index is None or not part.start <= index < part.stop:
                    unknown += 1
                else:
                    answers.setdefault(index, answer)
            held += self._settle(answers, shards)
            crash_point("half-read")
        if unknown:
            logger.warning(
                "answers to nothing that was asked batch=%s part=%s lines=%s",
                *(self._batch_id, part.number, unknown),
            )
        if held:
            raise NotNow

    def take_silence(self, part: ProviderPart, status: str) -> None:
        """Settle what has got no answer, now that the provider's batch has ended so."""
        code, message = _SILENCE.get(status, _NO_ANSWER)
        shards = self._parts.shards(self._batch_id, part)
        held = 0
        for page in pages(part.start, part.stop):
            missing = [
                item.index
                for item in self._reader.items_at(self._batch_id, page)
                if not item.status.ended
            ]
            answers = {
                index: Answer(custom_id="", error=LineError(code=code, message=message))
                for index in missing
            }
            held += self._settle(answers, shards)
        if held:
            raise NotNow

    def _settle(self, answers: Mapping[int, Answer], shards: Sequence[Shard]) -> int:
        """Settle the items, and return how many another execution holds."""

        def runs(index: int) -> Callable[[RegisteredChain, Claim], Any]:
            async def output(chain: RegisteredChain, claim: Claim) -> Any:
                return await self._output(answers[index], claim)

            return output

        held = 0
        for page in _by_page(answers):
            for ran in self._item_claims.run(page, runs, answered=True):
                held += sum(one.claim.verdict == "held" for one in ran)
                # Settled first: what is handed back may be claimed at once.
                self._item_claims.settle(
                    [one for one in ran if not self._goes_live(one.ended)], shards
                )
                self._item_claims.release([one for one in ran if self._goes_live(one.ended)])
        return held

    async def _output(self, answer: Answer, claim: Claim) -> Any:
        """Convert an answer to the chain's output, and report its usage."""
        if answer.response is not None:
            report_usage(Usage(requests=1))
        try:
            body = body_of(answer)
        except ChainError as error:
            set_step(error, self._plan.label)
            raise
        report_usage(client.paid(body, self._plan.call.asked_for(), batch=True))
        return await self._plan.output(body, config_of(claim))

    def _goes_live(self, ended: AttemptResult | None) -> bool:
        error = None if ended is None else ended.error
        if not self._live or ended is None or error is None or error.step != self._plan.label:
            return False
        return error.retryable or ended.needs_operator or error.code in _MAY_FIT


def _by_page(indexes: Iterable[int]) -> Iterator[list[int]]:
    found: dict[int, list[int]] = {}
    for index in sorted(indexes):
        found.setdefault(page_of(index), []).append(index)
    return iter(found.values())
