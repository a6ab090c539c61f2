"""Background work: what outlives an item starts in an empty context, and nothing else does."""

import ast
import asyncio
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import pytest

from batchord.chains.runtime import background
from batchord.chains.runtime.item_context import ItemContext, at, current_run, place, scope

ROOMS = ("chains", "ledger", "worker")
#: What copies the context of the code that calls it, unless it is given another.
STARTERS = {
    "create_task",
    "ensure_future",
    "gather",
    "TaskGroup",
    "run_coroutine_threadsafe",
    "call_soon",
    "call_soon_threadsafe",
    "call_later",
    "call_at",
    "add_done_callback",
    "add_reader",
    "add_signal_handler",
}
#: Those that may: by file and name, why the context of the caller is right there, or harmless.
ALLOWED = {
    (
        "chains/runtime/concurrency.py",
        "create_task",
    ): "an input of a batch runs in its batch's context",
    (
        "chains/runtime/loop_thread.py",
        "call_soon_threadsafe",
    ): "the call is the caller's; the rest ends the loop",
    ("chains/runtime/loop_thread.py", "add_done_callback"): "sets an event",
    ("worker/execution/asyncio_pool.py", "add_done_callback"): "hands a task on, without a context",
    ("worker/execution/running_attempts.py", "add_done_callback"): "forgets an attempt",
    (
        "chains/runtime/loop_thread.py",
        "run_coroutine_threadsafe",
    ): "closes the loop, which runs nothing more",
    ("chains/steps/embedding_batcher.py", "add_done_callback"): "forgets or cancels a request",
    (
        "chains/steps/embedding_request.py",
        "gather",
    ): "halves of a request, in its own empty context",
    ("worker/execution/item_scheduler.py", "add_done_callback"): "forgets a task",
    (
        "worker/maintenance/announcer.py",
        "call_soon",
    ): "Celery's consumer calls it, outside of items",
    (
        "worker/provider_batch/item_claims.py",
        "gather",
    ): "each item in a copy of the thread's context, which is empty",
    (
        "worker/notifications/dispatcher.py",
        "gather",
    ): "webhooks, in the context of their own thread",
}
#: By function of `batchord.chains.runtime.background`: how it is called.
WAYS = ("spawn", "call_later", "call_at", "call_soon_threadsafe")

_mine: ContextVar[str | None] = ContextVar("mine", default=None)


def started(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of each call in a file that starts something."""
    tree = ast.parse(path.read_text())
    ours = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "batchord.chains.runtime.background"
        for alias in node.names
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in ours:
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", None))
        if name == "gather" and ast.unparse(node.func) != "asyncio.gather":
            continue  # the Celery task of that name
        if name in STARTERS:
            yield node.lineno, name


def test_tasks_and_timers_of_the_process_are_started_in_one_place() -> None:
    root = Path(__file__).parents[2]
    files = [path for room in ROOMS for path in sorted((root / room).rglob("*.py"))]
    found = {
        (str(path.relative_to(root)), name): line
        for path in files
        if path != Path(background.__file__).resolve()
        for line, name in started(path)
    }
    raw = {f"{path}:{line}": name for (path, name), line in found.items()}
    known = {
        f"{path}:{line}": name for (path, name), line in found.items() if (path, name) in ALLOWED
    }
    assert raw == known, (
        "start it through batchord.chains.runtime.background, or say in ALLOWED why not"
    )
    assert set(ALLOWED) <= set(found), "what is not there any more needs no leave"


async def seen_from(way: str) -> tuple[object, ...]:
    """Return what a callback or task sees that is started from inside an item."""
    loop = asyncio.get_running_loop()
    seen: asyncio.Future[tuple[object, ...]] = loop.create_future()

    def look() -> None:
        seen.set_result((current_run(), place(), _mine.get()))

    async def look_in_task() -> None:
        look()

    token = _mine.set("an item's own")
    with scope(ItemContext()), at("one of its steps"):
        match way:
            case "spawn":
                await background.spawn(look_in_task())
            case "call_later":
                background.call_later(0, look)
            case "call_at":
                background.call_at(loop.time(), look)
            case "call_soon_threadsafe":
                background.call_soon_threadsafe(loop, look)
    _mine.reset(token)
    return await seen


@pytest.mark.parametrize("way", WAYS)
def test_what_is_started_there_sees_nothing_of_the_item(way: str) -> None:
    assert asyncio.run(seen_from(way)) == (None, (), None)


def test_a_run_begins_at_the_head_of_its_chain_wherever_it_is_begun() -> None:
    with scope(ItemContext()), at("outer"):
        with scope(ItemContext()):
            assert place() == ()
            with at("inner"):
                assert place() == ("inner",)
        assert place() == ("outer",)
