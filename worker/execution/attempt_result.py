"""The result of an attempt: an outcome as JSON text, or the reason for a missing output."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from itertools import chain
from typing import Any, Final, NamedTuple

from batchord.chains.explain import bounded_raw, explain
from batchord.chains.langchain.objects import dump
from batchord.chains.usage import Usage
from batchord.ledger.core.compression import split_head, with_head
from batchord.ledger.core.json_values import encode
from batchord.ledger.errors import ValueRejected
from batchord.ledger.models import ItemError, ItemStatus
from batchord.ledger.settings import Settings
from batchord.ledger.storage.item_transitions import Claim

#: What an item has used whose outcome was paid for elsewhere: known, and not unknown.
FREE: Final = Usage(requests=0, cost_nanos=0)


#: What an outcome says of an output that an earlier batch has paid for.
CACHED: Final = ',"cached":true'


#: Outputs up to this length are encoded on the loop: a thread costs more than they do. A number
#: counts for more than its digits, as it takes as long as `_NUMBER` characters.
_SHORT: Final = 16_384
_NUMBER: Final = 32
_DEPTH: Final = 20


class AttemptResult(NamedTuple):
    """The result of an attempt."""

    #: The outcome without its output, a JSON object.
    outcome: str
    #: The output as JSON text.
    output: str = "null"
    status: ItemStatus = ItemStatus.SUCCEEDED
    error: ItemError | None = None
    usage: Usage | None = None
    #: Seconds that the chain ran.
    busy: float = 0.0
    #: Not an outcome: the item is deferred for `put_off` seconds, or until a person acts (None).
    aside: bool = False
    put_off: float | None = None
    #: Whether the attempt counts that ended without an outcome; not if the provider was down.
    counts: bool = True

    @property
    def needs_operator(self) -> bool:
        """Whether it waits until a person acts."""
        return self.aside and self.put_off is None

    @property
    def code(self) -> str | None:
        """The error code for Celery, Flower and the logs, unless it succeeded."""
        if self.status is ItemStatus.SUCCEEDED:
            return None
        return self.error.code if self.error else self.status.value


class Problem(NamedTuple):
    """The reason why an item has no output."""

    error: ItemError
    #: It is no outcome: see `AttemptResult`.
    aside: bool = False
    put_off: float | None = None
    counts: bool = True


async def encoded(
    plain: Callable[[Any], Any], value: Any, attempts: int, settings: Settings, threads: Executor
) -> tuple[str, Problem | None]:
    """Encode an output as JSON text; `plain` converts it to JSON types.

    A head tells where it had objects of LangChain's. Large outputs are encoded in `threads`.
    """
    if _left_of(_SHORT, value) >= 0:
        return _encode(plain, value, attempts, settings)
    # In a thread: a large output must not hold up its neighbours.
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(threads, _encode, plain, value, attempts, settings)


def _left_of(characters: int, value: Any, depth: int = 0) -> int:
    """Return how many of the characters a JSON value leaves; below 0 if it is longer, or no JSON.

    Objects that a class of the chain serializes are encoded elsewhere: its code may take long.
    """
    kind = type(value)
    if kind is str:
        return characters - len(value)
    if kind is list:
        parts: Iterable[Any] = value
    elif kind is dict:
        parts = chain.from_iterable(value.items())
    else:
        return characters - _NUMBER if value is None or kind in (bool, int, float) else -1
    if depth == _DEPTH:
        return -1
    for part in parts:
        characters = _left_of(characters - 1, part, depth + 1)
        if characters < 0:
            return -1
    return characters


def _encode(
    plain: Callable[[Any], Any], value: Any, attempts: int, settings: Settings
) -> tuple[str, Problem | None]:
    try:
        value, types = dump(plain(value))
        text = encode(
            value, max_bytes=settings.max_output_bytes, setting="BATCHORD_MAX_OUTPUT_BYTES"
        )
        return with_head({"types": types} if types else {}, text), None
    except ValueRejected as error:
        return "null", Problem(
            ItemError(
                code=f"output_{error.code}",
                message=f"the chain's output is {error}",
                # It has been paid for: as much of it as an error keeps.
                raw=bounded_raw(value),
                attempts=attempts,
            )
        )
    except Exception as error:  # noqa: BLE001
        # A model of the user's may raise as it is dumped; unsettled, the item would run again.
        return "null", explained(error, attempts)


def same_as_first(claim: Claim, first: int) -> AttemptResult:
    """Return the outcome of the item with the same input, which has paid for it."""
    found = json.loads(claim.outcome)
    status = ItemStatus(found["status"])
    if status is not ItemStatus.SUCCEEDED:
        error = ItemError.model_validate(found["error"])
        return failed(error, FREE, more={"same_as": first})
    output = json.dumps(found["output"], ensure_ascii=False)
    more = f',"same_as":{first}'
    if "types" in found:
        more += f',"types":{json.dumps(found["types"])}'
    return ended_as(ItemStatus.SUCCEEDED, output, FREE, 0.0, more=more)


def ended_as(
    status: ItemStatus, output: str, usage: Usage | None, busy: float, *, more: str = ""
) -> AttemptResult:
    """Build the result of an attempt that ended without an error; `more`: JSON fields."""
    used = "" if usage is None else f',"usage":{_json_of(usage)}'
    head, output = split_head(output)
    objects = f',"types":{json.dumps(head["types"])}' if head else ""
    outcome = f'{{"status":"{status.value}"{used}{more}{objects}}}'
    return AttemptResult(outcome=outcome, output=output, status=status, usage=usage, busy=busy)


def _json_of(usage: Usage) -> str:
    # The cost in dollars is not kept: it follows from the rest.
    return usage.model_dump_json(exclude_none=True, round_trip=True)


def failed(
    error: ItemError,
    usage: Usage | None = None,
    busy: float = 0.0,
    *,
    more: Mapping[str, Any] | None = None,
) -> AttemptResult:
    """Build the result of an attempt that ended with this error."""
    fields: dict[str, Any] = {"status": "failed", "error": error.model_dump(exclude_none=True)}
    fields |= more or {}
    if usage is not None:
        fields["usage"] = usage.counts()
    outcome = json.dumps(fields, ensure_ascii=False)
    return AttemptResult(
        outcome=outcome, status=ItemStatus.FAILED, error=error, usage=usage, busy=busy
    )


def explained(error: BaseException, attempts: int) -> Problem:
    """Return what an error tells, as the item's error."""
    info = explain(error)
    found = ItemError(
        code=info.code,
        message=info.message,
        step=info.step,
        retryable=info.retryable,
        http_status=info.http_status,
        raw=info.raw,
        attempts=attempts,
    )
    return Problem(found)


def worker_lost(attempts: int) -> ItemError:
    """Return the error of an item that has cost too many processes."""
    return ItemError(
        code="worker_lost",
        message=f"its worker process died in each of {attempts} attempts",
        attempts=attempts,
    )
