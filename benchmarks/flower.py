"""How fast Flower's Batches pages answer, with a full ledger: `python -m benchmarks.flower`.

10,000 batches, and one of 100,000 items that have run, a tenth of them failed. Each page must take
less than 100 ms, at the 95th percentile of 50 requests over loopback; exit code 1 if one does not.
`/metrics` is measured beside them, with all those batches live: it sums up 1,000 of them.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

from batchord import Client, register
from batchord.ledger.core.sharding import Cut
from batchord.ledger.models import ItemStatus
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.item_leases import ItemLeases
from batchord.ledger.storage.item_transitions import ClaimRequest, Settlement
from tests.support.valkey import Server, free_port

LIMIT_MS: Final = 100
REQUESTS: Final = 50
PAGE: Final = 1000

_CUT: Final = Cut(
    items_per_task=1, items_per_slot=1, shard_tasks=100, shard_items=100, window=10, priority=5
)


def fill(client: Client, batches: int) -> None:
    """Submit batches of one item, with metadata; nobody works."""
    register("noop", lambda value: value)
    for n in range(batches):
        client.submit("noop", [n], metadata={"team": f"team-{n % 50}", "run": str(n)})
        if n and n % 1000 == 0:
            print(f"  {n} batches", file=sys.stderr)


def run_one(client: Client, items: int) -> str:
    """Submit a large batch, and have its items end as a worker has them; return its id."""
    batch = client.submit("noop", range(items), custom_ids=(f"row-{n}" for n in range(items)))
    store = BatchStore(client.settings)
    keys, exchange = store.keys.batch(batch.id), ItemLeases(store)
    with store.redis.pipeline(transaction=False) as pipe:
        for shard in range(items // _CUT.shard_items):
            start = shard * _CUT.shard_items
            pipe.hset(keys.shards, str(shard), f"{start} {start + _CUT.shard_items} 1")
        pipe.execute()
    for start in range(0, items, PAGE):
        page = range(start, start + PAGE)
        exchange.swap([], [ClaimRequest(batch_id=batch.id, index=n, token="t") for n in page])
        exchange.swap([_ended(batch.id, n) for n in page], [])
    return batch.id


def _ended(batch_id: str, index: int) -> Settlement:
    code = "" if index % 10 else f"error_{index % 200 // 10}"
    status = ItemStatus.FAILED if code else ItemStatus.SUCCEEDED
    error = f',"error":{{"code":"{code}","message":"m"}}' if code else ""
    return Settlement(
        batch_id=batch_id,
        index=index,
        token="t",
        shard=index // _CUT.shard_items,
        attempt=1,
        status=status,
        outcome=f'{{"status":"{status}"{error}}}',
        code=code,
        output="null" if code else str(index),
        usage={"requests": 1, "input_tokens": 700, "output_tokens": 90},
    )


@contextmanager
def flower(url: str) -> Iterator[str]:
    """A Flower of this ledger, without a login."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "batchord.worker.app", "flower", f"--port={port}"],
        env={**os.environ, "BATCHORD_REDIS_URL": url, "FLOWER_UNAUTHENTICATED_API": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urlopen(f"{address}/healthcheck").close()
                break
            except URLError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


def measure(address: str) -> list[float]:
    """Return how many milliseconds each of some requests took."""
    took = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        with urlopen(address) as answer:
            answer.read()
        took.append(1000 * (time.perf_counter() - began))
    return sorted(took)


def main() -> int:
    """Fill a ledger, ask for each page, and print a table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--batches", type=int, default=10_000)
    options.add_argument("--items", type=int, default=100_000)
    asked = options.parse_args()
    slow = 0
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        with Client(server.url) as client:
            fill(client, asked.batches - 1)
            batch_id = run_one(client, asked.items)
            counts = client.retrieve(batch_id).progress().request_counts
            assert (counts.done, counts.failed) == (asked.items, asked.items // 10)
        with flower(server.url) as address:
            print(f"{'page':<34}{'median ms':>10}{'p95 ms':>8}")
            for name, path in {
                "list, page": "/batches",
                "list, newest 25": "/batches/data",
                "list, 100": "/batches/data?limit=100",
                "list, by status": "/batches/data?status=completed",
                "list, by words that fit none": "/batches/data?text=nothing-fits",
                "detail, page": f"/batch/{batch_id}",
                "detail, data": f"/batch/{batch_id}/data",
                "API, one batch": f"/api/batches/{batch_id}",
                "metrics": "/metrics",
            }.items():
                took = measure(address + path)
                p95 = took[int(0.95 * len(took))]
                slow += p95 > LIMIT_MS and path != "/metrics"
                print(f"{name:<34}{statistics.median(took):>10.1f}{p95:>8.1f}")
    return int(slow > 0)


if __name__ == "__main__":
    sys.exit(main())
