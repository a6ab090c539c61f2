"""The checks of `batchord doctor`: dangers in a deployment, and what to change.

They read Redis's INFO only: a deployment's Redis user may lack the right to CONFIG.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from celery import Celery

from batchord.chains.steps.raw_request import REQUESTS
from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.broker.celery_rules import broken
from batchord.ledger.core.package_version import package_version
from batchord.ledger.core.redis_url import database_of, server_of
from batchord.ledger.errors import OtherFormat
from batchord.ledger.models import BatchRecord, BatchStatus
from batchord.ledger.settings import Settings
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.fleet import LATE, Fleet

#: Share of maxmemory from which on the memory is a warning.
FULL = 0.8
#: Seconds that clocks may differ; leases use the server's clock, so only displayed times are wrong.
CLOCK = 2.0
#: Seconds that workers have to report their configuration.
ANSWERS = 1.0
#: The oldest Redis version with the commands that Batchord uses.
OLDEST = (6, 2)

#: Unreadable batches that are listed by name, at most.
NAMED = 20


class Grade(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    #: Items can be lost, or nothing runs.
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    grade: Grade
    what: str
    #: What to change; empty if nothing.
    cure: str = ""


def checkup(store: BatchStore) -> list[Finding]:
    """Run all checks; findings are not sorted by grade, as later ones explain earlier ones.

    Raises:
        LedgerUnavailable: Redis cannot be reached or refuses us.
    """
    with store.talking():
        info: dict[str, Any] = store.redis.info("everything")
        ahead = time.time() - store.now()
    app = create_app(store.settings)
    celery = _celery(app, store.settings)
    app.close()
    reader = BatchReader(store)
    fleet = reader.fleet()
    return [
        _version(info, store.settings.url()),
        _eviction(info),
        _memory(info),
        _persistence(info),
        _clock(ahead),
        _redelivery(store.settings, reader),
        *celery,
        *_unreadable(reader),
        *_workers(fleet),
        *_unserved(reader, fleet),
        _loops(fleet),
    ]


def _version(info: dict[str, Any], url: str) -> Finding:
    name = "Valkey" if "valkey_version" in info else "Redis"
    text = str(info.get("valkey_version") or info.get("redis_version") or "?")
    numbers = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return Finding(Grade.ERROR, f"{name} {text}", f"use {oldest} or newer")
    where = f"at {server_of(url)}, database {database_of(url)}"
    return Finding(Grade.OK, f"{name} {text} {where}")


def _eviction(info: dict[str, Any]) -> Finding:
    policy = str(info.get("maxmemory_policy", "?"))
    what = f"maxmemory-policy {policy}"
    if policy == "noeviction":
        return Finding(Grade.OK, what)
    cure = "set `maxmemory-policy noeviction`: any other deletes items once memory is full"
    return Finding(Grade.ERROR, what, cure)


def _memory(info: dict[str, Any]) -> Finding:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not limit:
        return Finding(
            Grade.WARNING,
            f"memory {used / 2**20:,.0f} MB, no maxmemory",
            "set maxmemory below what the machine has: then a full ledger refuses batches, and "
            "the kernel does not kill it",
        )
    what = f"memory {used / 2**20:,.0f} of {limit / 2**20:,.0f} MB"
    if used > FULL * limit:
        return Finding(Grade.WARNING, what, "raise maxmemory, or `batchord purge` old batches")
    return Finding(Grade.OK, what)


def _persistence(info: dict[str, Any]) -> Finding:
    if int(info.get("aof_enabled", 0)):
        failed = str(info.get("aof_last_write_status", "ok")) != "ok"
        if failed:
            return Finding(Grade.ERROR, "append-only file cannot be written", "look at its disk")
        return Finding(Grade.OK, "append-only file on")
    return Finding(
        Grade.ERROR,
        "append-only file off",
        "set `appendonly yes`: without it a restart loses every batch, or those since the last "
        "snapshot",
    )


def _clock(ahead: float) -> Finding:
    what = f"clock {ahead:+.1f} s from the server's"
    if abs(ahead) > CLOCK:
        return Finding(Grade.WARNING, what, "synchronise the clocks: times shown here are wrong")
    return Finding(Grade.OK, what)


def _redelivery(settings: Settings, reader: BatchReader) -> Finding:
    timeouts = [chain.timeout for chain in reader.chains().values() if chain.timeout is not None]
    longest = max([settings.item_timeout, *timeouts])
    what = f"visibility timeout {settings.visibility_timeout} s, longest item {longest:g} s"
    if settings.visibility_timeout <= longest:
        return Finding(
            Grade.WARNING,
            what,
            "raise BATCHORD_VISIBILITY_TIMEOUT above it: messages of items that still run are "
            "delivered again and again (refused each time)",
        )
    return Finding(Grade.OK, what)


def _celery(app: Celery, settings: Settings) -> list[Finding]:
    """Ask running workers for settings that break batches, changed since their start."""
    try:
        running = app.control.inspect(timeout=ANSWERS).conf() or {}
    except Exception:  # noqa: BLE001
        running = {}  # a full server refuses the question; that is a finding of its own
    found = [
        Finding(Grade.WARNING, f"Celery of {worker}: {what}", f"{cure}, and restart it")
        for worker, conf in sorted(running.items())
        for line in broken({**conf, "result_backend": app.conf.result_backend}, app.conf, settings)
        for what, _, cure in [line.rpartition("; ")]
    ]
    return found or [Finding(Grade.OK, f"Celery's settings fit in {len(running)} workers")]


def _unreadable(reader: BatchReader) -> list[Finding]:
    unreadable = reader.unreadable()
    others = Counter(each.format for each in unreadable if isinstance(each, OtherFormat))
    of_others = [
        Finding(
            Grade.WARNING,
            f"{count} batches that have not ended are of format {format_}, which this version of "
            "Batchord leaves alone",
            "see that workers of the version that wrote them run, or replace this program",
        )
        for format_, count in sorted(others.items())
    ]
    found = [each for each in unreadable if not isinstance(each, OtherFormat)]
    if not found:
        return [*of_others, Finding(Grade.OK, "every batch that has not ended can be read")]
    count = Finding(
        Grade.ERROR,
        f"{len(found)} batches that have not ended cannot be read",
        "delete their keys, those with their ids in their names; others go on",
    )
    return [
        *of_others,
        count,
        *(
            Finding(Grade.ERROR, f"batch {each.batch_id} cannot be read ({each.why})")
            for each in found[:NAMED]
        ),
    ]


def _workers(fleet: Fleet) -> list[Finding]:
    if trouble := fleet.trouble():
        what, _, cure = trouble.partition(": ")
        return [Finding(Grade.WARNING, what, cure)]
    chains = ", ".join(fleet.chains())
    found = [
        Finding(Grade.OK, f"{len(fleet.workers)} workers alive, chains: {chains}"),
        *_drained(fleet),
        *_versions(fleet),
    ]
    for name in fleet.chains():
        # Requests of files are a chain that every worker has, whether or not it is used.
        if name != REQUESTS and (trouble := fleet.trouble(name)):
            what, _, cure = trouble.partition(": ")
            found.append(Finding(Grade.WARNING, what, cure))
    return found


def _unserved(reader: BatchReader, fleet: Fleet) -> list[Finding]:
    """Name the batches that no live worker can run, if there are workers at all."""
    found = reader.look(reader.active()) if fleet.workers else []
    waiting: dict[str, list[str]] = defaultdict(list)
    for record in found:
        if isinstance(record, BatchRecord) and record.status is BatchStatus.IN_PROGRESS:
            waiting[fleet.trouble(record.needs)].append(record.id)
    waiting.pop("", None)
    return [
        Finding(Grade.WARNING, f"{_named(ids)} cannot run: {what}", cure)
        for trouble, ids in waiting.items()
        for what, _, cure in [trouble.partition(": ")]
    ]


def _named(ids: Sequence[str]) -> str:
    more = len(ids) - NAMED
    return ", ".join(ids[:NAMED]) + (f" and {more} more batches" if more > 0 else "")


def _drained(fleet: Fleet) -> list[Finding]:
    """Name the workers that take from no queue: someone drains them, and may have forgotten."""
    names = [beat.name for beat in fleet.workers.values() if beat.name and not beat.queues]
    if not names:
        return []
    what = f"drained: {', '.join(sorted(names))}"
    return [Finding(Grade.WARNING, what, "they take nothing from the queues: end or restart them")]


def _versions(fleet: Fleet) -> list[Finding]:
    """Name the workers of another version of Batchord than ours."""
    ours = package_version()
    others = {
        f"{beat.name or process} ({beat.version or '?'})"
        for process, beat in fleet.workers.items()
        if beat.version != ours
    }
    if not others:
        return []
    what = f"other versions of Batchord than {ours}: {', '.join(sorted(others))}"
    return [Finding(Grade.WARNING, what, "replace these workers, or this program")]


def _loops(fleet: Fleet) -> Finding:
    late = {name: lag for name, lag in fleet.lags.items() if lag > LATE}
    if late:
        named = ", ".join(f"{name} ({lag:.1f} s)" for name, lag in late.items())
        return Finding(
            Grade.WARNING,
            f"event loop blocked: {named}",
            "its log says by which item and step: make that a plain def, which runs in a thread",
        )
    return Finding(Grade.OK, f"event loops of {len(fleet.lags)} processes that run items turn")
