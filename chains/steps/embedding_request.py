"""One request for many texts: if it fails, find the texts whose fault it is.

The texts are asked for again in two halves, and a half that fails likewise, until a text that
fails is alone. If both halves fail, a probe with a harmless text tells whether the server still
answers: without this, an outage would cost two requests a text.
"""

import asyncio
import copy
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from batchord.chains.errors import ChainError, RetryLater
from batchord.chains.explain import PutOff
from batchord.chains.ratelimit.circuit_breaker import FIRST_WAIT, OUTAGE_CODES
from batchord.chains.runtime.deadline import Deadline, all_paused
from batchord.chains.steps.vectors import UnsoundIndex, Vector, of_length
from batchord.chains.usage import Usage

#: The text of a probe.
PROBE: Final = "probe"
#: Errors of the key, the account, the model or the rate: another text would meet them as well.
_OF_NO_TEXT: Final = frozenset(
    {"authentication_error", "insufficient_quota", "model_not_found", "rate_limited"}
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one text: its vector or its error, and its share of the usage."""

    usage: Usage
    vector: Vector | None = None
    error: Exception | None = None


@dataclass(eq=False, slots=True)
class Wanted:
    """One text, and the future that its answer is put into. Cancel it to give the text up."""

    text: str
    tokens: int
    answer: asyncio.Future[Answer]
    #: The batch that wants it, and the deadline of the item.
    batch: Hashable
    deadline: Deadline | None
    #: Whether its item can wait elsewhere while the provider is down.
    gives_way: bool = False


class Mode(NamedTuple):
    """How one request is made."""

    #: Again if it fails, as the policy says.
    retried: bool
    #: Once if it is not answered in time, and so that others of its texts can be asked for before
    #: the deadlines of those who want them.
    bounded: bool
    #: Its failure may be the server's, and not only that of the texts that are searched through.
    guarded: bool = True


#: Asks for the vectors of these texts on behalf of those who want texts; reports what it uses to
#: the last argument.
Ask = Callable[
    [Sequence[str], Sequence[Wanted], Mode, Callable[[Usage], None]],
    Awaitable[list[Vector | ChainError]],
]


class EmbeddingRequest:
    """Answers texts that were collected for one request, each with its vector or its own error.

    While texts whose fault it is are searched for, the deadlines of all the texts stand still.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        #: What asking has cost so far, and no text was told of yet.
        self._spent = Usage()
        self._server_answers = False

    async def serve(self, wanted: Sequence[Wanted]) -> None:
        """Answer every text that is still wanted."""
        error = await self._try(wanted, Mode(retried=True, bounded=len(wanted) > 1))
        if error is None:
            return
        if len(wanted) == 1 and _as_if_down(error) and wanted[0].gives_way:
            self._answer(wanted, error=await self._outage(wanted, error) or error)
            return
        if len(wanted) == 1 or not _may_be_of_one_text(error):
            self._answer(wanted, error=error)
            return
        with all_paused(one.deadline for one in wanted):
            await self._search(wanted, error)

    async def _search(self, wanted: Sequence[Wanted], error: Exception) -> None:
        """Answer two or more texts that cannot be asked for together; `error` is what came then."""
        middle = len(wanted) // 2
        first, second = wanted[:middle], wanted[middle:]
        of_first = await self._try(first)
        if of_first is None and len(second) > 1:
            # It is in the second half: to ask for all of that would tell nothing new.
            await self._search(second, error)
            return
        of_second = await self._try(second)
        if of_first is not None and of_second is not None:
            outage = await self._outage(wanted, of_first, of_second)
            if outage is not None:
                # What has failed alone has its own error; what is wrong with others is unknown.
                alone = not isinstance(outage, PutOff)
                self._answer(first, error=of_first if len(first) == 1 and alone else outage)
                self._answer(second, error=of_second if len(second) == 1 and alone else outage)
                return
        await asyncio.gather(self._go_on(first, of_first), self._go_on(second, of_second))

    async def _go_on(self, wanted: Sequence[Wanted], error: Exception | None) -> None:
        if error is None:
            return
        if len(wanted) == 1 or not _may_be_of_one_text(error):
            self._answer(wanted, error=error)
        else:
            await self._search(wanted, error)

    async def _try(self, wanted: Sequence[Wanted], mode: Mode | None = None) -> Exception | None:
        """Ask for the texts that are still wanted, and answer them; return why that failed."""
        wanted = _live(wanted)
        if not wanted:
            return None
        # The halves are the further attempts; a text that is alone has none but its own.
        mode = mode or Mode(retried=len(wanted) == 1, bounded=True, guarded=len(wanted) == 1)
        try:
            found = await self._ask([one.text for one in wanted], wanted, mode, self._spend)
            found = await self._of_one_length(found, wanted)
        except Exception as error:  # noqa: BLE001
            # It is handed to those who wait, whatever it is.
            return error
        self._answer(wanted, found)
        return None

    def _spend(self, usage: Usage) -> None:
        self._spent += usage

    async def _outage(self, wanted: Sequence[Wanted], *errors: Exception) -> Exception | None:
        """Return why the server answers nothing now, after these errors; else None.

        A server that has answered may be down a moment later. It is asked again if an error may
        come of that.
        """
        passing = [error for error in errors if isinstance(error, RetryLater)]
        if self._server_answers and not passing:
            return None
        found = await self._probe(wanted)
        self._server_answers = not isinstance(found, Exception)
        if not isinstance(found, Exception):
            return None
        if isinstance(found, PutOff):
            return found
        error = next(iter([*passing, found]))
        if _as_if_down(error) and all(one.gives_way for one in wanted):
            return PutOff(error, FIRST_WAIT, outage=True)
        return error

    async def _probe(self, wanted: Sequence[Wanted]) -> Vector | Exception:
        """Embed a harmless text on behalf of `wanted`; return its vector or the error."""
        try:
            mode = Mode(retried=False, bounded=True)
            [found] = await self._ask([PROBE], wanted, mode, self._spend)
        except Exception as error:  # noqa: BLE001
            return error
        return found

    async def _of_one_length(
        self, found: list[Vector | ChainError], wanted: Sequence[Wanted]
    ) -> list[Vector | ChainError]:
        lengths = Counter(len(one) for one in found if isinstance(one, list))
        if len(lengths) < 2:
            return found
        probe = await self._probe(wanted)
        expected = len(probe) if isinstance(probe, list) else None
        return [of_length(one, expected) for one in found]

    def _answer(
        self,
        wanted: Sequence[Wanted],
        found: Sequence[Vector | ChainError] = (),
        error: Exception | None = None,
    ) -> None:
        usage, self._spent = self._spent, Usage()
        live = [i for i, one in enumerate(wanted) if not one.answer.done()]
        if not live:
            self._spend(usage)  # for those who are answered next
        shares = share_out(usage, [wanted[i].tokens for i in live])
        for i, share in zip(live, shares, strict=True):
            wanted[i].answer.set_result(_answer_of(share, found[i] if error is None else error))


def _live(wanted: Sequence[Wanted]) -> list[Wanted]:
    return [one for one in wanted if not one.answer.done()]


def _as_if_down(error: Exception) -> bool:
    return isinstance(error, RetryLater) and error.code in OUTAGE_CODES


def _may_be_of_one_text(error: Exception) -> bool:
    if not isinstance(error, ChainError) or isinstance(error, PutOff | UnsoundIndex):
        return False
    return error.code not in _OF_NO_TEXT


def _answer_of(usage: Usage, found: "Vector | Exception") -> Answer:
    if isinstance(found, Exception):
        # Each gets an error of its own: what is noted on one is not seen on the others.
        return Answer(usage, error=_copy_of(found))
    return Answer(usage, vector=found)


def _copy_of(error: Exception) -> Exception:
    try:
        copied = copy.copy(error)
    except Exception:  # noqa: BLE001
        return error  # not every exception can be made anew; a shared one is better than none
    copied.__cause__ = error.__cause__
    return copied.with_traceback(error.__traceback__)


def share_out(usage: Usage, weights: Sequence[int]) -> list[Usage]:
    """Divide the usage of one request among its texts; the shares sum up to it exactly.

    Tokens and cost go by weight, what counts requests and their waits goes to the first.
    """
    total = sum(weights)
    shares = []
    before = 0
    for weight in weights:
        after = before + weight
        shares.append(
            Usage(
                requests=_of_first(usage.requests, before),
                input_tokens=_part(usage.input_tokens, before, after, total),
                cost_nanos=_part(usage.cost_nanos, before, after, total),
                unpriced_requests=_of_first(usage.unpriced_requests, before),
                unmetered_requests=_of_first(usage.unmetered_requests, before),
                rate_limit_waits=_of_first(usage.rate_limit_waits, before),
                rate_limit_wait_ms=_of_first(usage.rate_limit_wait_ms, before),
            )
        )
        before = after
    return shares


def _part(n: int | None, before: int, after: int, total: int) -> int | None:
    # What is due up to here, less what was due before: rounding never adds up.
    return None if n is None else n * after // total - n * before // total


def _of_first(n: int | None, before: int) -> int | None:
    return 0 if n is not None and before else n
