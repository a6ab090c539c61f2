"""Claims, leases and outcomes in any order: an item is counted once, first write wins."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chains import register
from ledger.exchange import Exchange, Settlement, Wish
from ledger.models import ItemStatus
from ledger.store import Store
from producer import Batch
from tests.conftest import Deploy
from tests.harness import Deployment

pytestmark = pytest.mark.timeout(60)

ITEMS = 2

#: What a worker or the sweep may do to an item; a lease of 0 ms has ended when it is read.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["claim", "claim and die", "settle", "fail", "beat", "lapsed"]),
        st.integers(0, ITEMS - 1),
        st.integers(0, 2),
    ),
    min_size=4,
    max_size=25,
)


@pytest.fixture(scope="module")
def ledger(deploy_for_module: Deploy) -> Iterator[tuple[Deployment, Exchange, Exchange]]:
    """A deployment, a store whose leases last, and one whose leases are over at once."""
    register("echo", str, replace=True)
    deployment = deploy_for_module(max_attempts=4)
    brief = Store(deployment.settings.model_copy(update={"lease": 0.0001}))
    lasting = Store(deployment.settings)
    yield deployment, Exchange(lasting), Exchange(brief)
    lasting.close()
    brief.close()


def test_only_the_latest_claim_may_settle_and_only_once(
    ledger: tuple[Deployment, Exchange, Exchange],
) -> None:
    deployment, lasting, brief = ledger
    batch = deployment.client.submit("echo", [1])
    model = Model()
    claim(brief, batch, 0, model, "dead", alive=False)
    claim(lasting, batch, 0, model, "alive", alive=True)
    claim(lasting, batch, 0, model, "too late", alive=True)
    assert lasting.beat(batch.id, {0: "dead"}) == [0]
    for token in ("dead", "never-claimed", "alive", "dead", "alive"):
        for status in (ItemStatus.SUCCEEDED, ItemStatus.FAILED):
            settle(lasting, batch, 0, model, token, status)
    assert model.output == "alive"
    check(batch, [model])
    deployment.redis.flushdb()


@dataclass
class Model:
    """What must be true of one item."""

    tokens: list[str] = field(default_factory=list)
    holder: str | None = None
    #: Whether the holder's lease is alive.
    alive: bool = False
    attempts: int = 0
    output: str | None = None
    status: ItemStatus | None = None


@given(steps=STEPS)
@settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_an_item_is_counted_at_most_once_whatever_happens(
    ledger: tuple[Deployment, Exchange, Exchange], steps: list[tuple[str, int, int]]
) -> None:
    deployment, lasting, brief = ledger
    batch = deployment.client.submit("echo", range(ITEMS))
    models = [Model() for _ in range(ITEMS)]
    for number, (what, index, which) in enumerate(steps):
        model = models[index]
        token = model.tokens[which % len(model.tokens)] if model.tokens else "never-claimed"
        match what:
            case "claim" | "claim and die":
                exchange = lasting if what == "claim" else brief
                claim(exchange, batch, index, model, f"token-{number}", alive=what == "claim")
            case "settle" | "fail":
                status = ItemStatus.SUCCEEDED if what == "settle" else ItemStatus.FAILED
                settle(lasting, batch, index, model, token, status)
            case "beat":
                ours = token == model.holder and model.output is None
                assert lasting.beat(batch.id, {index: token}) == ([] if ours else [index])
                model.alive = model.alive or ours
            case "lapsed":
                expected = {i for i, each in enumerate(models) if each.holder and not each.alive}
                assert set(deployment.client._store.lapsed(batch.id, limit=100)) <= expected
    check(batch, models)
    deployment.redis.flushdb()


def claim(
    exchange: Exchange, batch: Batch, index: int, model: Model, token: str, *, alive: bool
) -> None:
    wish = Wish(batch_id=batch.id, index=index, token=token)
    _, [claimed] = exchange.swap([], [wish])
    if model.output is not None:
        assert claimed.verdict == "settled"
    elif model.holder is not None and model.alive:
        assert claimed.verdict == "held"
    else:
        attempts = model.attempts + 1
        # Its last start, and no other, is put off until it is alone; that costs no attempt.
        assert (claimed.verdict == "suspect") is (attempts == 4)
        if claimed.verdict == "suspect":
            _, [claimed] = exchange.swap([], [replace(wish, alone=True)])
        assert (claimed.verdict, claimed.attempt) == (
            ("run", attempts) if attempts <= 4 else ("lost", attempts - 1)
        )
        model.tokens.append(token)
        model.holder, model.alive, model.attempts = token, alive, attempts


def settle(
    exchange: Exchange, batch: Batch, index: int, model: Model, token: str, status: ItemStatus
) -> None:
    settlement = Settlement(
        batch_id=batch.id,
        index=index,
        token=token,
        shard=0,
        status=status,
        outcome=f'{{"status":"{status}"}}',
        output=f'"{token}"',
        usage={"requests": 1},
    )
    [receipt], _ = exchange.swap([settlement], [])
    recorded = receipt.recorded
    if model.output is not None:
        # The same again is its own repetition, after an answer was lost; it is not counted.
        assert recorded is ((token, status) == (model.output, model.status))
        return
    assert recorded is (token == model.holder)
    if recorded:
        model.output, model.status, model.holder = token, status, None


def check(batch: Batch, models: list[Model]) -> None:
    items: list[Any] = list(batch.items())
    for item, model in zip(items, models, strict=True):
        assert item.output == model.output
        assert item.attempts == model.attempts
        if model.output is not None:
            assert item.status is model.status
        else:
            assert item.status is (ItemStatus.RUNNING if model.attempts else ItemStatus.QUEUED)
    record = batch.record()
    ended = [model.status for model in models if model.status]
    assert record.request_counts.succeeded == ended.count(ItemStatus.SUCCEEDED)
    assert record.request_counts.failed == ended.count(ItemStatus.FAILED)
    assert (record.usage.requests if record.usage else 0) == len(ended)
    assert record.running <= sum(model.holder is not None for model in models)
