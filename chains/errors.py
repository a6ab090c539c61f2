"""The errors of chains, named by the reaction to them.

* BatchordError          the base of everything of ours, in all packages
  + ChainError           the item fails now
    + RetryLater         the same call may succeed later: try again, not before `after` seconds
      + PutOff           so long that the item gives its place to others meanwhile
    + OperatorNeeded     no call can succeed until a person acts (key, quota, model): stop the batch
    + InvalidInput       the input does not fit the chain: mend it and submit again
  + ChainNotFound        nothing is registered under this name: import its module
  + BadSpec              a chain that travels as data cannot be built: mend what the error names
  + BadPrices            the price table cannot be used: mend the file that BATCHORD_PRICES names

`code` says which one it is, in one word:

* RetryLater: connection_error, timeout, conflict, rate_limited, server_error, retry_later, and
  invalid_output for an answer that lacks what its form has
* OperatorNeeded: insufficient_quota, authentication_error, permission_denied, model_not_found,
  redirected, file_unreadable
* ChainError: bad_request, unprocessable, content_filter, refusal, length, invalid_output,
  prompt_field_missing
* InvalidInput: invalid_input
"""

from collections.abc import Iterable
from typing import Any, ClassVar

_PATH = "_batchord_path"


class BatchordError(Exception):
    """The base of every error that is ours."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments would break the default, which calls the class with `args` only.
        return _rebuild, (type(self), self.args, dict(self.__dict__))


class ChainError(BatchordError):
    """The item fails now; trying the same again would fail the same way."""

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: str,
        http_status: int | None = None,
        step: str | None = None,
        raw: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.http_status = http_status
        #: The model's answer, where it is the answer that is wrong.
        self.raw = raw
        self._step = step

    @property
    def step(self) -> str | None:
        """Where in the chain it was raised, e.g. `summary.Chat`; None if outside of any step."""
        return self._step or step_of(self)


class RetryLater(ChainError):
    """The same call may succeed later: not before `after` seconds, if the provider said so."""

    retryable: ClassVar[bool] = True

    #: The breaker of the target whose call failed, until `runtime.retry` has judged the failure.
    target: Any = None

    def __init__(
        self,
        message: str,
        *,
        code: str = "retry_later",
        after: float | None = None,
        http_status: int | None = None,
        step: str | None = None,
        raw: str | None = None,
    ) -> None:
        super().__init__(message, code=code, http_status=http_status, step=step, raw=raw)
        self.after = after


class OperatorNeeded(ChainError):
    """No call can succeed until a person acts on the key, the quota or the model."""

    #: The provider has said so of one call: what others meet tells whether it is about them too.
    of_one_call: bool = False


class InvalidInput(ChainError):
    """The input does not fit the chain."""

    def __init__(
        self, message: str, *, code: str = "invalid_input", step: str | None = None
    ) -> None:
        super().__init__(message, code=code, step=step)


class ChainNotFound(BatchordError):
    """No chain is registered under this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = ", ".join(sorted(known)) or "none"
        super().__init__(
            f"no chain is registered as {name!r} (known: {names}): name the module that registers "
            "it in BATCHORD_CHAINS or --chains"
        )
        self.name = name


class BadSpec(BatchordError):
    """A chain that travels as data cannot be built; the message says what to change."""


class BadPrices(BatchordError):
    """The price table cannot be used; the message says what to change."""


def _rebuild(
    kind: type[BatchordError], args: tuple[Any, ...], state: dict[str, Any]
) -> BatchordError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def set_step(error: BaseException, name: str) -> None:
    """Say that the step of this name raised the error; what was noted before is forgotten."""
    _set_path(error, [name])


def prefix_step(error: BaseException, name: str) -> None:
    """Say that the error came from within this branch."""
    _set_path(error, [name, *_path_of(error)])


def step_of(error: BaseException) -> str | None:
    """Return the path to the step that raised the error, e.g. `summary.Chat`."""
    return ".".join(_path_of(error)) or None


def _path_of(error: BaseException) -> list[str]:
    try:
        path = getattr(error, _PATH, None)
    except Exception:  # noqa: BLE001
        return []
    return [part for part in path if isinstance(part, str)] if isinstance(path, list) else []


def _set_path(error: BaseException, path: list[str]) -> None:
    try:
        setattr(error, _PATH, path)
    except Exception:  # noqa: BLE001
        # An exception class may forbid attributes; the path is only a help.
        return
