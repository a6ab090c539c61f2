"""Records of the calls of a process under one limit: tokens, refusals, news for the limiter."""

import math
from typing import Final

from batchord.chains.ratelimit.found_limits import News

#: How much a call's tokens still count when the next one is known.
MEMORY: Final = 0.95
#: Items whose refusals are remembered.
MOST_ITEMS: Final = 1_000


class TokenUse:
    """Tokens that calls were guessed to use and that they used, the last ones above all."""

    def __init__(self) -> None:
        self._guessed = self._used = 1.0

    def learn(self, guessed: int, used: int) -> None:
        """Count a call that was answered."""
        self._guessed = MEMORY * self._guessed + guessed
        self._used = MEMORY * self._used + used

    def expected(self, guessed: int) -> int:
        """Return the tokens to reserve for a guess: more, if guesses have been too low."""
        return math.ceil(guessed * max(1.0, self._used / self._guessed))


class ItemRefusals:
    """The refusals of each item, the last items above all."""

    def __init__(self) -> None:
        self._by_item: dict[str, list[float]] = {}

    def of(self, item: str | None) -> list[float]:
        """Return the count of an item's refusals between answers to others, and the last's time.

        The caller keeps the list up to date. None stands for a call without an item.
        """
        found = self._by_item.pop(item, None) if item is not None else None
        found = found or [0.0, math.inf]
        if item is not None:
            self._by_item[item] = found
            if len(self._by_item) > MOST_ITEMS:
                del self._by_item[next(iter(self._by_item))]
        return found


class UnsentNews:
    """News of a process's calls that the limiter has not been told; times are the loop's clock."""

    def __init__(self) -> None:
        self._refused: list[float] = []
        self._answered = self._full = 0
        self._youngest = -math.inf
        self._recovered = False

    @property
    def refused(self) -> bool:
        """Whether a call was refused."""
        return bool(self._refused)

    def add_refused(self, began: float) -> None:
        """Add a call that was refused."""
        self._refused.append(began)

    def add_answered(self, began: float, *, full: bool) -> None:
        """Add a call that was answered; `full`: it began as the bound of calls was used up."""
        self._answered, self._youngest = self._answered + 1, max(self._youngest, began)
        self._full += full

    def add_recovered(self) -> None:
        """Add that an outage is over."""
        self._recovered = True

    def take(self, now: float) -> News:
        """Return the news since the last call of this method."""
        refused = [now - began for began in self._refused]
        age = now - self._youngest if self._answered else 0.0
        news = News(refused, self._answered, self._full, age, self._recovered)
        self._refused, self._answered, self._full, self._recovered = [], 0, 0, False
        return news
