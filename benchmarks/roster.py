"""The competitors, each in the setting that its documentation and our trials found best.

Two worker processes each, where nothing else is said: the machine has two cores.
"""

from typing import Any, Final, Literal

from batchord.ledger.core.message_ids import lists_of
from batchord.ledger.settings import Settings
from benchmarks.competitor import Arguments, Competitor

_CELERY: Final = (
    *("-m", "celery", "-A", "benchmarks.peers.celery_app", "worker"),
    *("--loglevel", "WARNING"),
)
_QUIET: Final = ("--without-gossip", "--without-mingle", "--without-heartbeat")


def batchord(
    name: str,
    items_per_task: int | Literal["auto"] = "auto",
    *,
    processes: int = 2,
    concurrency: int = 32,
    pool: str = "asyncio",
) -> Competitor:
    """Batchord as its supervisor starts it; with leases, order, and results in the ledger."""
    return Competitor(
        name=name,
        caller=("-m", "benchmarks.ours"),
        workers=tuple(_worker(number, concurrency) for number in range(processes)),
        options={"items_per_task": items_per_task},
        env={"BATCHORD_POOL": pool},
        queues=tuple(name for queue in Settings().queues for name in lists_of(queue)),
    )


def _worker(number: int, concurrency: int) -> Arguments:
    return (
        *("-P", "-m", "batchord.worker", "--concurrency", str(concurrency)),
        *("--loglevel", "WARNING", "--hostname", f"bench-{number}@%h"),
        *("--without-gossip", "--without-mingle"),
    )


def reader() -> Competitor:
    """Batchord for what only it has; its caller takes no options."""
    return Competitor(
        name="Batchord",
        caller=("-m", "benchmarks.ours"),
        workers=tuple(_worker(number, 10) for number in range(2)),
    )


def submitter() -> Competitor:
    """Batchord without a worker."""
    return Competitor(name="Batchord", caller=("-m", "benchmarks.ours"))


def celery_default() -> Competitor:
    """Celery as it comes: one worker with a child a core."""
    return Competitor(
        name="Celery chord, defaults",
        caller=("-m", "benchmarks.peers.celery_caller"),
        workers=((*_CELERY, "--concurrency", "2"),),
        queues=("celery",),
    )


def celery_tuned(name: str = "Celery chord, tuned", *, chunk: int = 1) -> Competitor:
    """Celery with all that made it faster here; `chunk` items a task, by its `chunks`."""
    return Competitor(
        name=name,
        caller=("-m", "benchmarks.peers.celery_caller"),
        workers=((*_CELERY, *_QUIET, "--concurrency", "2"),),
        env={"BENCH_CELERY": "tuned"},
        options={"chunk": chunk},
        queues=("celery",),
    )


def celery_submitter() -> Competitor:
    """Tuned Celery without a worker."""
    return Competitor(
        name="Celery chord, tuned",
        caller=("-m", "benchmarks.peers.celery_caller"),
        env={"BENCH_CELERY": "tuned"},
    )


def celery_threads(concurrency: int = 100) -> Competitor:
    """Tuned Celery for items that wait: a prefork child could only hold one."""
    pool = ("--pool", "threads", "--concurrency", str(concurrency))
    return Competitor(
        name="Celery chord, tuned",
        caller=("-m", "benchmarks.peers.celery_caller"),
        workers=tuple((*_CELERY, *_QUIET, *pool, "--hostname", f"{n}@%h") for n in range(2)),
        env={"BENCH_CELERY": "tuned", "BENCH_PREFETCH": "2"},
        queues=("celery",),
    )


def dramatiq(name: str, variant: str = "", *, threads: int = 16) -> Competitor:
    """dramatiq; `variant` is `no results`, `asyncio`, or neither."""
    command: Any = ("-m", "dramatiq", "benchmarks.peers.dramatiq_app", "--processes", "2")
    return Competitor(
        name=name,
        caller=("-m", "benchmarks.peers.dramatiq_caller"),
        workers=((*command, "--threads", str(threads)),),
        announcements=2,
        peer=True,
        env={"BENCH_DRAMATIQ": variant},
        queues=("dramatiq:default",),
    )


def arq(*, max_jobs: int = 20, poll_delay: float = 0.01) -> Competitor:
    """arq; by default it looks for messages twice a second, and runs ten at a time."""
    worker = ("-m", "benchmarks.peers.arq_worker", str(max_jobs), str(poll_delay))
    return Competitor(
        name="arq",
        caller=("-m", "benchmarks.peers.arq_caller"),
        workers=(worker, worker),
        peer=True,
    )


def langchain(how: Literal["batch", "abatch"]) -> Competitor:
    """LangChain, which has no workers: one process, nothing is kept."""
    return Competitor(
        name=f"LangChain {how}",
        caller=("-m", "benchmarks.peers.langchain_caller"),
        options={"how": how},
    )


def bare() -> Competitor:
    """The limit: two processes that do nothing but call."""
    return Competitor(
        name="two bare asyncio processes", caller=("-m", "benchmarks.peers.asyncio_caller")
    )


def embedder(name: str, how: Literal["embed", "bare"]) -> Competitor:
    """Texts to vectors without workers: one process, nothing is kept."""
    return Competitor(
        name=name, caller=("-m", "benchmarks.peers.embed_caller"), options={"how": how}
    )
