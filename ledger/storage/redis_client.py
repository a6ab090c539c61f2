"""Settings of redis-py: how it packs commands, when it tries again, and which errors pass."""

import ssl
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.connection import HiredisRespSerializer
from redis.retry import Retry

T = TypeVar("T")

#: How the errors of a server begin that is full, cannot write to its disk, or is no master just
#: now: it has done nothing, and will do it once that is over.
_NOT_NOW: Final = ("OOM", "MISCONF", "READONLY")


class Packer(HiredisRespSerializer):
    """Packs commands of text and bytes only: numbers are written out here.

    hiredis asks Python for a number's text and does not look whether it got one. Python looks for
    signals there, so that Ctrl-C in that moment is a segmentation fault (hiredis 3.5, src/pack.c).
    """

    def pack(self, *args: Any) -> list[bytes]:
        """Return the command as it goes over the wire."""
        texts = [arg if arg.__class__ in _SAFE else _text(arg) for arg in args]
        packed: list[bytes] = super().pack(*texts)  # type: ignore[arg-type]  # its annotation means each
        return packed


_SAFE: Final = (str, bytes)


def _text(value: Any) -> Any:
    return repr(value) if isinstance(value, (int, float)) else value


def not_now(error: Exception) -> bool:
    """Return whether the server refuses everybody just now, and will do it later."""
    # redis-py takes the first word from the errors that it has classes for.
    refusals = (redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError)
    return isinstance(error, refusals) or str(error).startswith(_NOT_NOW)


class Tries(Retry):
    """Tries a call again, and nothing else within it.

    redis-py tries to connect as often within each try of a command, and looks as often whether the
    connection is alive: two retries were a dozen, and two minutes of patience two
    hours. A refused password is final, and so is a refused certificate.
    """

    def __init__(self, retries: int) -> None:
        super().__init__(ExponentialWithJitterBackoff(base=0.1, cap=1.0), retries)

    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        """As redis-py has it; within another call of the same thread, only once."""
        if getattr(_trying, "now", False):
            return self._once(do, fail, with_failure_count)
        _trying.now = True
        try:
            return super().call_with_retry(do, fail, is_retryable or _passes, with_failure_count)
        finally:
            _trying.now = False

    def _once(self, do: Callable[[], T], fail: Callable[..., Any], count: bool) -> T:
        try:
            return do()
        except self._supported_errors as error:
            fail(*((error, 1) if count else (error,)))
            raise


_trying = threading.local()


def _passes(error: Exception) -> bool:
    refused = behind(error, ssl.SSLCertVerificationError)
    return refused is None and not isinstance(error, redis.AuthenticationError)


E = TypeVar("E", bound=Exception)


def behind(error: BaseException | None, kind: type[E]) -> E | None:
    """Return the first error of this kind among `error` and its causes, or None."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error
