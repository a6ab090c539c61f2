"""Any behaviours of a provider, one after the other, among many good requests."""

import os
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from batchord.chains import register
from batchord.ledger.models import BatchStatus
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.providers.rows import Row
from tests.providers.server import MisbehavingServer
from tests.providers.test_answers import ROWS
from tests.support.harness import Deployment, provider_env

pytestmark = pytest.mark.timeout(600)

COUNT, CULPRITS = 200, 20
#: Calls that one culprit may cost: its own, those that tell whose fault it is, and small probes;
#: and one that is always refused as if there were too many.
MOST_EACH = 12
MOST_REFUSED = 40

ROWS_OF_CHAT = {row.name: row for row in ROWS if "chat" in row.routes}


@pytest.fixture(scope="module")
def fleet(deploy_for_module: Deploy, misbehaving: MisbehavingServer) -> Deployment:
    register("answers-patiently", lambda value: value, replace=True)
    deployment = deploy_for_module(sweep_interval=0.1, alike_limit=0)
    env = {**provider_env(misbehaving), "BATCHORD_CHAINS": "tests.providers.chains_on_workers"}
    workers = [deployment.start_worker(concurrency=8, env=env, wait=False) for _ in range(2)]
    for worker in workers:
        deployment.wait_for_worker(worker)
    return deployment


def ended(batch: Batch) -> None:
    """Wait for the batch's end; resume it if its provider speaks of the account to many of it."""
    until = time.monotonic() + 400
    while not batch.record().status.ended:
        assert time.monotonic() < until, f"{batch.record()} does not end"
        if batch.record().status is BatchStatus.PAUSED:
            batch.resume()
        time.sleep(0.2)


#: Some of each kind, so that no run is without them.
MIXED = sorted(ROWS_OF_CHAT)[:: max(1, len(ROWS_OF_CHAT) // CULPRITS)][:CULPRITS]


@example(names=MIXED, places=set(range(0, COUNT, COUNT // CULPRITS)))
@given(
    names=st.lists(st.sampled_from(sorted(ROWS_OF_CHAT)), min_size=CULPRITS, max_size=CULPRITS),
    places=st.sets(st.integers(0, COUNT - 1), min_size=CULPRITS, max_size=CULPRITS),
)
@settings(
    max_examples=int(os.environ.get("BATCHORD_TEST_EXAMPLES", "1")),
    deadline=None,
    # A failure takes long: it is shown as it is. Sequences by chance are for longer runs.
    phases=[Phase.explicit, *([Phase.generate] if "BATCHORD_TEST_EXAMPLES" in os.environ else [])],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_some_requests_meet_the_others_succeed_with_few_calls(
    fleet: Deployment, misbehaving: MisbehavingServer, names: list[str], places: set[int]
) -> None:
    misbehaving.reset()
    rows: dict[int, Row] = {}
    for place, name in zip(sorted(places), names, strict=True):
        rows[place] = ROWS_OF_CHAT[name]
    for place, row in rows.items():
        misbehaving.misbehave(row.behaviour, match=f"text {place}.", n=row.times)
    batch = fleet.client.submit("answers-patiently", [f"text {i}." for i in range(COUNT)])
    ended(batch)
    items = list(batch.results())
    wrong = [item for item in items if item.index not in rows and item.error is not None]
    assert not wrong, "the others have nothing to do with it"
    for place, row in rows.items():
        error = items[place].error
        assert (None if error is None else error.code) == row.code, row.name
    calls = Counter(request.text for request in misbehaving.requests)
    assert sum(calls[f"text {i}."] for i in range(COUNT) if i not in rows) == COUNT - CULPRITS
    each = [MOST_REFUSED if row.code == "rate_limited" else MOST_EACH for row in rows.values()]
    assert len(misbehaving.requests) <= COUNT + sum(each)
