"""`explain` of any exception at all: it never raises, and what it says can be recorded."""

import json
from collections.abc import Callable
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchord.chains import ChainError, ErrorInfo, OperatorNeeded, RetryLater, explain
from batchord.chains.explain import MAX_MESSAGE, MAX_RAW, as_chain_error
from batchord.ledger.models import ItemError


class Raises(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class RaisesOnAnything(Exception):
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class SaysNoText(Exception):
    def __str__(self) -> str:
        return 3  # type: ignore[return-value]


class Bare(RetryLater):
    """Does not begin as its base does."""

    def __init__(self) -> None:
        pass


class Recursive(Exception):
    def __str__(self) -> str:
        return str(self)


def cyclic() -> Exception:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    return first


def cyclic_connection() -> Exception:
    import httpx2
    import openai

    error = openai.APIConnectionError(request=httpx2.Request("POST", "http://x.test"))
    error.__cause__ = other = OSError("x")
    other.__cause__ = error
    return error


def odd(**attributes: Any) -> Exception:
    error = OperatorNeeded("told so", code="x")
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


def invalid() -> Exception:
    with pytest.raises(pydantic.ValidationError) as caught:
        pydantic.TypeAdapter(list[int]).validate_python(["\ud800"] * 1_000)
    return caught.value


ERRORS: list[Callable[[], BaseException]] = [
    Raises,
    RaisesOnAnything,
    SaysNoText,
    Recursive,
    Bare,
    cyclic,
    cyclic_connection,
    invalid,
    lambda: ValueError("x" * 50_000_000),
    lambda: ValueError("\ud800"),
    lambda: type("N" * 10_000, (Exception,), {})("x"),
    lambda: ChainError("x", code="c", raw="\ud800" * 50_000),
    lambda: ValueError({"message": "\ud800", "code": [1]}),
    lambda: ValueError({"message": {"message": {"message": 3}}, "code": 10**400}),
    lambda: odd(code=None),
    lambda: odd(code=3),
    lambda: odd(raw=b"bytes"),
    lambda: odd(raw={"a": {1, 2}}),
    lambda: odd(http_status="400"),
    lambda: odd(http_status=10**400),
    lambda: odd(_batchord_path="text"),
    lambda: odd(_batchord_path=[1, None]),
    lambda: odd(_step=3),
    lambda: BaseExceptionGroup("x", [KeyboardInterrupt(), Raises()]),
    KeyboardInterrupt,
    lambda: SystemExit({"a": 1}),
    *(lambda after=after: odd_wait(after) for after in (float("nan"), float("inf"), "soon", -1)),
]


def odd_wait(after: Any) -> Exception:
    return RetryLater("later", after=after)


def recorded(info: ErrorInfo) -> None:
    """Fail unless it can be an item's error."""
    assert 0 < len(info.message) <= MAX_MESSAGE
    assert info.raw is None or len(info.raw) <= MAX_RAW
    assert info.after is None or 0 <= info.after < float("inf")
    error = ItemError(
        code=info.code,
        message=info.message,
        step=info.step,
        retryable=info.retryable,
        http_status=info.http_status,
        raw=info.raw,
    )
    assert json.loads(error.model_dump_json().encode())["code"] == info.code


@pytest.mark.parametrize("make", ERRORS)
def test_whatever_is_raised_is_explained(make: Callable[[], BaseException]) -> None:
    error = make()
    as_chain_error(error)
    recorded(explain(error))


def test_a_subclass_that_does_not_begin_as_its_base_keeps_what_it_is() -> None:
    info = explain(Bare())
    assert (info.code, info.message, info.retryable) == ("Bare", "Bare", True)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary()
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["message", "code", "error", "type", "detail"]), inner),
    max_leaves=10,
)  # fmt: skip


@given(st.sampled_from([ValueError, TypeError, KeyError, OSError, TimeoutError]), anything)
def test_any_argument_is_explained(kind: type[Exception], argument: Any) -> None:
    recorded(explain(kind(argument)))


@given(anything, anything, anything, anything)
def test_any_attribute_is_explained(code: Any, raw: Any, status: Any, after: Any) -> None:
    recorded(explain(odd(code=code, raw=raw, http_status=status)))
    recorded(explain(odd_wait(after)))
