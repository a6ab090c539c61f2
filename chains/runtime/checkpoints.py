"""Checkpoints: outputs of an item's steps for its next attempt, so that no call is paid twice."""

import hashlib
import json
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import pydantic_core

#: Characters of one output that are kept; a longer one is made again.
MOST_KEPT: Final = 65_536
_TRIES: Final = "~"


@dataclass(frozen=True, slots=True)
class Tries:
    """The failed tries of a call, in all attempts of its item."""

    count: int = 0
    #: When the first one began, in seconds since 1970.
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Worded:
    """An output, and the text that it was read from: who reads that again has the very same.

    A dump of the output may not: a validator may change what it has changed once before, and
    fields may be excluded, computed, or written under another name.
    """

    value: Any
    text: str


class Checkpoints:
    """The outputs of one item's steps, and how often their calls were tried.

    An output is used once: a step that makes the same call twice has made two. What this attempt
    has given is not for itself but for the next one; `on_news` is told when there is some, and
    `news` is what the next attempt's `Checkpoints` is made from, put behind what this one was made
    from.
    """

    def __init__(self, item: str, text: str = "", on_news: Callable[[], None] | None = None):
        #: Names the item to a provider.
        self.item = item
        self._on_news = on_news
        self._earlier: dict[str, deque[str]] = defaultdict(deque)
        self._tries: dict[str, Tries] = {}
        self._begun: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._news: list[str] = []
        for line in text.split("\n")[:-1]:
            key, _, value = line.partition(" ")
            if key.startswith(_TRIES):
                self._tries[key.removeprefix(_TRIES)] = Tries(**json.loads(value))
            else:
                self._earlier[key].append(value)

    @property
    def has_earlier(self) -> bool:
        """Whether earlier attempts have left an output that was not used."""
        return bool(self._earlier)

    def take(self, key: str) -> str | None:
        """Take the JSON output of an earlier attempt's call of this key; each output once."""
        with self._lock:
            outputs = self._earlier.get(key)
            if not outputs:
                return None
            output = outputs.popleft()
            if not outputs:
                del self._earlier[key]
            return output

    def put(self, key: str, output: str) -> None:
        """Keep an output, which is JSON without a line break; not if it is too long."""
        if len(output) <= MOST_KEPT:
            self._note(f"{key} {output}\n")

    @property
    def has_tries(self) -> bool:
        """Whether failed tries of any call are recorded."""
        return bool(self._tries)

    def tries(self, key: str, began: float | None = None) -> Tries:
        """Return the earlier failed tries of the call of this key, the first of which began then.

        `began`: the time of the first one, in seconds since 1970, without any; None: now.
        """
        return self._tries.get(key) or Tries(since=time.time() if began is None else began)

    def tried(self, key: str, tries: Tries) -> None:
        """Record the call's failed tries for the next attempt."""
        self._tries[key] = tries
        self._note(f"{_TRIES}{key} {json.dumps(asdict(tries))}\n")

    def begin(self, key: str) -> int:
        """Count a call of this key that begins; return the earlier ones' number in this attempt."""
        with self._lock:
            self._begun[key] += 1
            return self._begun[key] - 1

    def news(self) -> str:
        """Take the checkpoints that were recorded since the last call."""
        with self._lock:
            news, self._news = self._news, []
        return "".join(news)

    def _note(self, line: str) -> None:
        with self._lock:
            self._news.append(line)
        if self._on_news is not None:
            self._on_news()


def digest(*parts: Any) -> str | None:
    """Return a short digest of these values; None if a value has no JSON form."""
    try:
        return hashlib.sha256(pydantic_core.to_json(parts)).hexdigest()[:20]
    except (ValueError, RecursionError):
        return None


def dump_plain(value: Any) -> str | None:
    """Serialize a value to JSON; None unless reading it gives an equal value."""
    try:
        return json.dumps(value, allow_nan=False) if _is_plain(value) else None
    except (ValueError, RecursionError):
        return None


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is list:
        return all(map(_is_plain, value))
    if kind is dict:
        return all(type(key) is str for key in value) and all(map(_is_plain, value.values()))
    return value is None or kind in (str, int, float, bool)
