"""Instructions of docs/operating.md, carried out."""

from typing import Any

import pytest

from batchord.chains import register
from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.models import BatchStatus
from tests.conftest import Deploy
from tests.support.harness import wait_until

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def _chains() -> None:
    register("nap", _same, replace=True)


def _same(value: Any) -> Any:
    return value


def naps(count: int) -> list[dict[str, Any]]:
    return [{"seconds": 0.2, "value": n} for n in range(count)]


def test_a_worker_that_consumes_no_more_drains_and_others_go_on(deploy: Deploy) -> None:
    deployment = deploy()
    old = deployment.start_worker(concurrency=4)
    batch = deployment.client.submit("nap", naps(200))
    wait_until(lambda: batch.record().running == 4, what="it works")
    ready = next(line for line in old.log.splitlines() if line.endswith(" ready."))
    with create_app(deployment.settings) as app:
        for queue in deployment.settings.queues:
            [answer] = app.control.cancel_consumer(
                queue, destination=[ready.split()[-2]], reply=True, timeout=5
            )
            assert "no longer consuming" in str(answer)
    wait_until(lambda: batch.record().running == 0, what="what it had in hand has ended")
    done = batch.record().request_counts.done
    assert done < 200
    old.stop()
    old.wait()
    assert batch.record().request_counts.done == done
    deployment.start_worker(concurrency=50)
    batch.wait(20)
    # Nothing was handed back, and nothing ran twice.
    assert {item.attempts for item in batch.results()} == {1}


def test_a_paused_batch_waits_while_the_chain_behind_its_name_is_replaced(deploy: Deploy) -> None:
    deployment = deploy(sweep_interval=0.2)
    old = deployment.start_worker(concurrency=4)
    batch = deployment.client.submit("nap", naps(40))
    wait_until(lambda: batch.record().running == 4, what="it works")
    batch.pause()
    wait_until(lambda: batch.record().running == 0, what="what ran has ended")
    done = batch.record().request_counts.done
    assert done < 40
    old.stop()
    old.wait()
    deployment.start_worker(concurrency=20)
    assert (batch.record().status, batch.record().request_counts.done) == (BatchStatus.PAUSED, done)
    batch.resume()
    batch.wait(20)
    assert {item.attempts for item in batch.results()} == {1}
