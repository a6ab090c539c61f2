"""Well-behaved chains, slow ones, and chains that fail in the ways that chains do."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from batchord.chains import (
    ChainError,
    Chat,
    Embed,
    Lambda,
    OperatorNeeded,
    Prompt,
    Responses,
    RetryLater,
    RunnableConfig,
    Usage,
    register,
    report_usage,
)


class Question(BaseModel):
    """An input with fields."""

    text: str
    times: int = 1


def write_line(path: str, line: object) -> None:
    """Append one line in one write, so that lines of many processes never mix."""
    with Path(path).open("ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


async def double(number: int) -> int:
    return 2 * number


def echo(value: Any) -> Any:
    return value


async def spend(tokens: int) -> int:
    """Use this number of tokens."""
    report_usage(Usage(requests=1, input_tokens=tokens))
    return tokens


def repeat(question: Question) -> str:
    return question.text * question.times


async def nap(what: dict[str, Any]) -> Any:
    """Return `value` after `seconds`."""
    await asyncio.sleep(what["seconds"])
    return what["value"]


def block(what: dict[str, Any]) -> Any:
    """As `nap`, and hold a thread meanwhile."""
    time.sleep(what["seconds"])
    return what["value"]


async def may_fail(what: dict[str, Any]) -> Any:
    """Return `value` after `seconds`, unless `fail` names an error; any other code too."""
    await asyncio.sleep(what.get("seconds", 0.0))
    match what.get("fail"):
        case "later":
            raise RetryLater("slow down", code="rate_limited", http_status=429)
        case "operator":
            raise OperatorNeeded("no such key", code="authentication_error", http_status=401)
        case "chain":
            raise ChainError("will not do", code="refusal")
        case "bug":
            raise KeyError("missing")
        case str(code):
            raise ChainError("as asked", code=code)
    return what["value"]


async def mend(what: dict[str, Any]) -> Any:
    """Return `value`, but fail until the file `until` is there, if one is named."""
    if what["until"] is not None and not Path(what["until"]).exists():
        raise ValueError("not mended yet")
    return what["value"]


def reveal(text: str) -> str:
    """Return the text backwards; raise with its letters swapped in case if it asks for that."""
    if text.startswith("raise"):
        raise RuntimeError(text.swapcase())
    return text[::-1]


def journal(what: dict[str, Any]) -> Any:
    """Write `value` into the file `path` and return it."""
    write_line(what["path"], what["value"])
    return what["value"]


async def gated(what: dict[str, Any]) -> Any:
    """Write `value pid` into the file `path`, wait for the file `gate`, return the pid."""
    write_line(what["path"], f"{what['value']} {os.getpid()}")
    while not Path(what["gate"]).exists():  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return os.getpid()


async def timed(what: dict[str, Any]) -> Any:
    """Write when it started and ended, by the machine's clock, into the file `path`."""
    started = time.monotonic()
    await asyncio.sleep(what["seconds"])
    write_line(what["path"], f"{started} {time.monotonic()}")
    return what["value"]


async def die(what: dict[str, Any]) -> Any:
    """End the process: each time, or once only if a file `once` is named; not before `after` is."""
    while "after" in what and not Path(what["after"]).exists():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    once = what.get("once")
    if once is not None and Path(once).exists():
        return what["value"]
    if once is not None:
        Path(once).touch()
    if what.get("die"):
        os._exit(9)
    return what["value"]


class Unreadable(dict[str, Any]):
    """A value that raises as it is read."""

    def items(self) -> Any:
        raise LookupError("not now")


def hostile_output(kind: str) -> Any:
    """Return what is not JSON, too deep or too large, or just about fits."""
    deep: Any = "bottom"
    for _ in range({"deep_100": 100, "deep_101": 101, "deep_5000": 5000}.get(kind, 0)):
        deep = [deep]
    loop: list[Any] = []
    loop.append(loop)
    return {
        "nan": lambda: {"x": float("nan")},
        "infinity": lambda: [float("-inf")],
        "object": object,
        "bytes": lambda: b"bytes",
        "iterator": lambda: iter([1, 2]),
        "int_keys": lambda: {1: "one"},
        "surrogate": lambda: "\ud800",
        "surrogate_key": lambda: {"\ud800": 1},
        "huge_int": lambda: 10**5000,
        "loop": lambda: loop,
        "deep_100": lambda: deep,
        "deep_101": lambda: deep,
        "deep_5000": lambda: deep,
        "large": lambda: "x" * 2_000_000,
        "unreadable": Unreadable,
        "fine": lambda: "fine",
    }[kind]()


class Unprintable(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


async def hostile_error(kind: str) -> str:
    """Raise what chains should not raise."""
    errors: dict[str, Any] = {
        "SystemExit": SystemExit(3),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "GeneratorExit": GeneratorExit(),
        "CancelledError": asyncio.CancelledError(),
        "StopIteration": StopIteration("x"),
        "Unprintable": Unprintable(),
        "RecursionError": RecursionError("x"),
        "ExceptionGroup": ExceptionGroup("several", [ValueError("x"), TypeError("y")]),
        "surrogate": ValueError("\ud800"),
        "long": ValueError("x" * 100_000),
    }
    if kind in errors:
        raise errors[kind]
    return kind


def hostile_error_in_thread(kind: str) -> str:
    """As `hostile_error`, from a sync step."""
    if kind != "fine":
        raise {"SystemExit": SystemExit(3), "KeyboardInterrupt": KeyboardInterrupt()}[kind]
    return kind


def tagged(text: str, config: RunnableConfig) -> str:
    return f"{config['tags'][0]} {text}"


register("double", double, input_type=int)
register("spend", spend, reports_usage=True)
register("echo", echo)
register("repeat", repeat, input_type=Question, output_type=str)
register("nap", nap)
register("block", block)
register("may-fail", may_fail)
register("mend", mend)
register("reveal", reveal)
register("journal", journal)
register("gated", gated)
register("timed", timed)
register("die", die)
register("hostile-output", hostile_output)
register("hostile-error", hostile_error)
register("hostile-error-in-thread", hostile_error_in_thread)
register("overrun", nap, timeout=0.4)
register("overrun-in-thread", block, timeout=0.4)
register("two-steps", {"left": may_fail, "right": echo})
register("embed", Embed("test-embedding", dimensions=8))
register("ask", Prompt("Say {word}") | Chat("test-model"))
register("ask-typed", Chat("test-model", output_type=Question))
register("ask-framed", Prompt("Say {word}") | Chat("test-model") | str.upper)
register("ask-tagged", Lambda(tagged) | Chat("test-model") | Lambda(tagged))
register("respond", Responses("test-model", output_type=Question))
register("embed-one", Embed("test-embedding", dimensions=4))
register("ask-twice", Chat("test-model") | Chat("test-model"))
