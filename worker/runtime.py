"""One process's share of the work: claim an item, run its chain on the event loop, settle it."""

import asyncio
import json
import logging
import secrets
from typing import Any

from chains import ChainNotFound, RegisteredChain, get_chain
from chains.errors import explain
from chains.loop import default_loop
from chains.run import scope
from chains.usage import Usage
from ledger.connection import PATIENT
from ledger.errors import ValueRejected
from ledger.models import ItemError, ItemStatus, Outcome
from ledger.settings import Settings
from ledger.store import Claim, Store
from ledger.values import encode
from worker.leases import Leases

logger = logging.getLogger(__name__)


class Refused(Exception):
    """The item is not to be run here: `verdict` is the ledger's answer to the claim."""

    def __init__(self, verdict: str) -> None:
        super().__init__(verdict)
        self.verdict = verdict


class Runtime:
    """What the tasks of a process share; it connects to nothing before the first item."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings, retries=PATIENT)
        self.leases = Leases(self.store)

    def run_item(self, batch_id: str, index: int) -> Outcome:
        """Run one attempt of an item and record its outcome; return what was recorded.

        Raises:
            Refused: it was not claimed, or another execution took it over meanwhile.
        """
        token = secrets.token_hex(8)
        claim = self.store.claim(batch_id, index, token)
        if claim.verdict not in ("run", "lost"):
            raise Refused(claim.verdict)
        self.leases.hold(batch_id, index, token)
        try:
            outcome, output = self._attempt(claim)
            recorded = self.store.settle(
                batch_id,
                index,
                token,
                status=outcome.status,
                outcome=_record(outcome, output),
                usage=outcome.usage.model_dump(exclude_none=True) if outcome.usage else {},
            )
        finally:
            self.leases.drop(batch_id, index)
        _log(batch_id, index, claim.attempt, outcome, recorded)
        if not recorded:
            raise Refused("taken over")
        return outcome

    def _attempt(self, claim: Claim) -> tuple[Outcome, str]:
        if claim.verdict == "lost":
            return _failed(_worker_lost(claim.attempt), None), "null"
        try:
            chain = get_chain(claim.chain)
        except ChainNotFound as error:
            return _failed(_chain_not_found(error, claim.attempt), None), "null"
        value, problem, usage = default_loop().run(self._run(chain, claim))
        if problem is not None:
            return _failed(problem, usage), "null"
        limit = self.settings.max_output_bytes
        try:
            # Here and not on the loop: a large output must not hold up its neighbours.
            output = encode(value, max_bytes=limit, setting="BATCHORD_MAX_OUTPUT_BYTES")
        except ValueRejected as error:
            return _failed(_output_rejected(error, claim.attempt), usage), "null"
        except Exception as error:  # noqa: BLE001
            # A model of the user's may raise as it is dumped; unsettled, the item would run again.
            return _failed(_explained(error, claim.attempt), usage), "null"
        return Outcome(status=ItemStatus.SUCCEEDED, usage=usage), output

    async def _run(
        self, chain: RegisteredChain, claim: Claim
    ) -> tuple[Any, ItemError | None, Usage | None]:
        """Run the chain under the item's deadline; whatever it raises is the item's error."""
        seconds = chain.timeout or self.settings.item_timeout
        deadline = asyncio.timeout(seconds)
        with scope() as run:
            try:
                async with deadline:
                    checked = chain.validate_json(claim.input)
                    return await chain.chain.ainvoke(checked), None, run.usage
            except BaseException as error:
                # SystemExit and the like too: one item's code must not end everybody's process.
                # A chain may also raise CancelledError by itself; left unsettled, its message
                # would hold a slot of this worker for ever.
                if isinstance(error, asyncio.CancelledError) and _cancelling():
                    raise
                if deadline.expired():
                    return None, _timed_out(seconds, claim.attempt), run.usage
                return None, _explained(error, claim.attempt), run.usage


def _cancelling() -> bool:
    """Whether someone outside asked the running item to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _explained(error: BaseException, attempt: int) -> ItemError:
    info = explain(error)
    return ItemError(
        code=info.code,
        message=info.message,
        step=info.step,
        retryable=info.retryable,
        http_status=info.http_status,
        attempts=attempt,
    )


def _failed(error: ItemError, usage: Usage | None) -> Outcome:
    return Outcome(status=ItemStatus.FAILED, error=error, usage=usage)


def _record(outcome: Outcome, output: str) -> str:
    """The outcome as the ledger keeps it; the output is JSON text already."""
    fields = outcome.model_dump(mode="json", exclude={"output"}, exclude_none=True)
    head = json.dumps(fields, ensure_ascii=False)
    return f'{head[:-1]},"output":{output}}}'


def _worker_lost(attempts: int) -> ItemError:
    return ItemError(
        code="worker_lost",
        message=f"its worker process died in each of {attempts} attempts",
        attempts=attempts,
    )


def _chain_not_found(error: ChainNotFound, attempt: int) -> ItemError:
    return ItemError(code="chain_not_found", message=str(error), attempts=attempt)


def _timed_out(seconds: float, attempt: int) -> ItemError:
    return ItemError(
        code="timeout",
        message=f"no output within {seconds:g} s: raise the chain's timeout or "
        "BATCHORD_ITEM_TIMEOUT",
        retryable=True,
        attempts=attempt,
    )


def _output_rejected(error: ValueRejected, attempt: int) -> ItemError:
    return ItemError(
        code=f"output_{error.code}", message=f"the chain's output is {error}", attempts=attempt
    )


def _log(batch_id: str, index: int, attempt: int, outcome: Outcome, recorded: bool) -> None:
    fields = {
        "batch": batch_id,
        "item": index,
        "attempt": attempt,
        "status": outcome.status.value,
        "code": outcome.error.code if outcome.error else None,
    }
    what = "item settled" if recorded else "late outcome refused"
    logger.info("%s %s", what, " ".join(f"{k}={v}" for k, v in fields.items()), extra=fields)
