"""Chains that travel as data: any worker runs them, registered nowhere; outputs have their type."""

import asyncio
from collections.abc import Iterator
from typing import Any, Literal, assert_type

import pydantic
import pytest

from batchord import (
    Batch,
    Budget,
    ChainSpec,
    Client,
    IdempotencyConflict,
    Item,
    ItemNotSucceeded,
    OutputMismatch,
    SubmitRefused,
)
from batchord.ledger.models import ItemStatus
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.chain_totals import totals
from tests.conftest import Deploy
from tests.support.harness import Deployment, provider_env
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(120)


class Triage(pydantic.BaseModel):
    urgency: Literal["low", "high"]
    summary: str


class Picky(pydantic.BaseModel):
    urgency: str
    summary: str

    @pydantic.field_validator("summary")
    @classmethod
    def _without_two(cls, value: str) -> str:
        if "two" in value:
            raise ValueError("it has a two")
        return value


ROWS = [{"subject": "one", "body": "site down"}, {"subject": "two", "body": "rename"}]
PROMPT = "Triage {subject}: {body}"


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as started:
        yield started


@pytest.fixture(scope="module")
def worker(deploy_for_module: Deploy, server: OpenAIServer) -> Deployment:
    """A worker that has imported no module of chains."""
    deployment = deploy_for_module(alike_limit=0, provider_poll=0.2)
    env = {**provider_env(server), "BATCHORD_CHAINS": "", "OPENAI_MODEL": "the-workers-own"}
    deployment.start_worker(env={**env, "BATCHORD_PROVIDER_POLL": "0.2"})
    return deployment


@pytest.fixture
def client(worker: Deployment, server: OpenAIServer) -> Client:
    server.reset()
    return worker.client


def asked(server: OpenAIServer) -> list[str]:
    return sorted(request.text for request in server.requests)


def test_a_prompt_runs_on_a_worker_that_has_never_heard_of_it(
    client: Client, server: OpenAIServer
) -> None:
    batch = client.submit(
        prompt=PROMPT,
        system="Be {how}.",
        model="mine",
        inputs=[{**row, "how": "brief"} for row in ROWS],
    )
    assert batch.outputs() == [
        "echo: Triage one: site down",
        "echo: Triage two: rename",
    ]
    assert asked(server) == [
        "Be brief.\nTriage one: site down",
        "Be brief.\nTriage two: rename",
    ]
    assert {request.body["model"] for request in server.requests} == {"mine"}
    assert batch.record().chain.startswith("prompt@")


async def _types_are_known(client: Client) -> None:
    """Say to mypy, which checks it, what the types are; this is not run."""
    batch = client.submit(prompt=PROMPT, inputs=ROWS, output_type=Triage)
    assert_type(batch, Batch[Triage])
    assert_type(batch.outputs(), list[Triage])
    assert_type([item.output for item in batch.results()], list[Triage])
    assert_type([item.output async for item in batch.as_completed()], list[Triage])
    assert_type(client.submit("triage", ROWS), Batch[Any])
    assert_type(client.submit(prompt=PROMPT, output_type={}, inputs=ROWS), Batch[Any])
    assert_type(client.retrieve(batch.id, output_type=Triage), Batch[Triage])
    assert_type(await client.asubmit("triage", ROWS, output_type=Triage), Batch[Triage])
    assert_type(await client.asubmit(prompt=PROMPT, inputs=ROWS), Batch[Any])
    plain: Batch = client.retrieve(batch.id)
    item: Item = next(iter(plain.results()))
    assert_type(item.output["any"], Any)


def test_its_outputs_have_the_type_that_was_asked_for(client: Client, server: OpenAIServer) -> None:
    batch: Batch[Triage] = client.submit(prompt=PROMPT, model="m", output_type=Triage, inputs=ROWS)
    outputs: list[Triage] = batch.outputs()
    item: Item[Triage] = next(iter(batch.results()))
    assert [type(each) for each in outputs] == [Triage, Triage]
    assert item.output == outputs[0]
    assert [each.output for each in batch.items()] == outputs
    assert {each.index: each.output for each in batch.as_completed()} == dict(enumerate(outputs))
    again = client.retrieve(batch.id, output_type=Triage)
    assert again.outputs() == outputs
    assert client.retrieve(batch.id).outputs() == [each.model_dump() for each in outputs]
    form = server.requests[0].body["response_format"]["json_schema"]
    assert form["name"] == "Triage"
    assert form["strict"] is True


@pytest.mark.parametrize(
    ("output_type", "output"),
    [
        ({"type": "object", "properties": {"urgency": {"enum": ["low"]}}}, {"urgency": "low"}),
        ({"type": "array", "items": {"type": "string"}}, None),
        (list[Triage], None),
        (None, "echo: Triage one: site down"),
    ],
)
def test_schemas_and_types_of_any_form(client: Client, output_type: Any, output: Any) -> None:
    [found] = client.submit(
        prompt=PROMPT, model="m", output_type=output_type, inputs=ROWS[:1]
    ).outputs()
    assert found == output if output is not None else isinstance(found, list)


def test_awaited_it_is_the_same(client: Client) -> None:
    async def run() -> list[Triage]:
        batch = await client.asubmit(prompt=PROMPT, model="m", output_type=Triage, inputs=ROWS)
        found = [item.output async for item in batch.results()]
        assert found == await batch.aoutputs()
        return found

    assert [type(each) for each in asyncio.run(run())] == [Triage, Triage]


def test_an_output_of_another_type_names_its_item(client: Client) -> None:
    batch = client.submit(
        prompt=PROMPT, model="m", output_type=Triage, inputs=ROWS, custom_ids=["a", "b"]
    )
    batch.wait()
    picky = client.retrieve(batch.id, output_type=Picky)
    items = iter(picky.results())
    assert isinstance(next(items).output, Picky), "those before it are given"
    with pytest.raises(OutputMismatch) as raised:
        next(items)
    assert (raised.value.index, raised.value.custom_id) == (1, "b")
    assert "item 1 (b)" in str(raised.value)
    assert "summary: Value error, it has a two" in str(raised.value)
    with pytest.raises(OutputMismatch):
        picky.outputs()
    first, second = picky.outputs(return_exceptions=True)
    assert isinstance(first, Picky)
    assert isinstance(second, OutputMismatch)
    assert [item.status for item in batch.results()] == [ItemStatus.SUCCEEDED] * 2


def test_a_later_row_without_a_field_is_its_own_error(client: Client) -> None:
    batch = client.submit(prompt=PROMPT, model="m", inputs=[*ROWS, {"subject": "three"}])
    *good, bad = batch.outputs(return_exceptions=True)
    assert len(good) == 2
    assert isinstance(bad, ItemNotSucceeded)
    assert bad.code == "prompt_field_missing"


def test_a_field_becomes_vectors_in_shared_requests(client: Client, server: OpenAIServer) -> None:
    inputs = [{"id": n, "text": f"text {n}"} for n in range(50)]
    batch = client.submit(embed="text", model="vectors", inputs=inputs)
    assert [len(vector) for vector in batch.outputs()] == [64] * 50
    assert len(server.requests) < 10, "texts of many items share a request"
    assert batch.record().chain.startswith("embed@")
    spec = ChainSpec(embed="text", model="vectors", dimensions=8)
    assert len(client.submit(spec, inputs[:1]).outputs()[0]) == 8


def test_one_prompt_pays_once_and_another_does_not_take_its_answers(
    client: Client, server: OpenAIServer
) -> None:
    for prompt, cached in ((PROMPT, False), (PROMPT, True), (PROMPT + "!", False)):
        batch = client.submit(prompt=prompt, model="m", inputs=ROWS, cache=True)
        batch.wait()
        assert {item.cached for item in batch.results()} == {cached}
    assert len(server.requests) == 4
    twice = client.submit(prompt=PROMPT + "?", model="m", inputs=ROWS[:1] * 5, dedupe=True)
    assert len(twice.outputs()) == 5
    assert len(server.requests) == 5


def test_an_idempotency_key_is_for_one_prompt(client: Client) -> None:
    first = client.submit(prompt=PROMPT, model="m", inputs=ROWS, idempotency_key="one")
    again = client.submit(prompt=PROMPT, model="m", inputs=ROWS, idempotency_key="one")
    assert again.id == first.id
    with pytest.raises(IdempotencyConflict):
        client.submit(prompt=PROMPT, model="n", inputs=ROWS, idempotency_key="one")


def test_a_budget_and_the_providers_batches_take_it(client: Client) -> None:
    budget = Budget(tokens=1_000_000)
    batch = client.submit(
        prompt=PROMPT, model="m", output_type=Triage, inputs=ROWS, mode="provider", budget=budget
    )
    assert [type(each) for each in batch.outputs()] == [Triage, Triage]


def test_failed_items_run_again_by_the_same_prompt(client: Client, server: OpenAIServer) -> None:
    server.fail_next(400, match="one")
    batch = client.submit(prompt=PROMPT, model="m", inputs=ROWS)
    assert batch.wait().request_counts.failed == 1
    batch.retry_failed()
    assert batch.outputs() == ["echo: Triage one: site down", "echo: Triage two: rename"]


def test_estimates_know_what_the_prompt_adds_and_then_what_it_used(client: Client) -> None:
    long = PROMPT + " " + "x" * 4000
    before = client.estimate(prompt=long, model="m", inputs=ROWS)
    assert before.based_on == "characters"
    assert 2000 < (before.input_tokens or 0) < 2100
    client.submit(prompt=long, model="m", inputs=ROWS).wait()
    after = client.estimate(prompt=long, model="m", inputs=ROWS * 2)
    assert (after.based_on, after.batches, after.items) == ("batches", 1, 4)
    other = client.estimate(prompt=long, model="n", inputs=ROWS)
    assert other.based_on == "characters"


def test_an_estimate_needs_no_server() -> None:
    offline = Client("redis://127.0.0.1:1/0")
    found = offline.estimate(prompt=PROMPT, model="m", inputs=ROWS)
    assert found.items == 2
    with pytest.raises(SubmitRefused, match="no field body: the input has subject"):
        offline.estimate(prompt=PROMPT, model="m", inputs=[{"subject": 1}])


def test_many_prompts_are_counted_together(worker: Deployment, client: Client) -> None:
    client.submit(prompt="any {subject}", model="m", inputs=ROWS).wait()
    store = BatchStore(worker.settings)
    try:
        assert {name for name in totals(store, []) if "@" in name} == set()
        assert totals(store, [])["prompt"].outcomes[ItemStatus.SUCCEEDED] >= 2
    finally:
        store.close()


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"chain": "double", "prompt": PROMPT}, "a chain ('double') and a prompt: give one of them"),
    ({"chain": "double", "embed": "a"}, "a chain ('double') and a prompt: give one of them"),
    ({"chain": "double", "model": "m"}, "model: goes with a prompt, a registered chain has its"),
    ({"chain": "double", "system": "m"}, "system: goes with a prompt, a registered chain has"),
    ({}, "no chain: give the name that it is registered under, or a prompt"),
    ({"prompt": PROMPT}, "no model: name one (model=, or -m), or set OPENAI_MODEL"),
    ({"prompt": PROMPT, "embed": "a", "model": "m"}, "give a prompt or a field to embed, and not"),
    ({"prompt": "{a.__class__}", "model": "m"}, "is not a plain name"),
    ({"prompt": "{betreff}", "model": "m"}, "input 0: no field betreff: the input has subject, b"),
    ({"embed": "text", "model": "m"}, "input 0: no field text: the input has subject, body"),
    ({"prompt": PROMPT, "model": "m", "output_type": {"type": "x"}}, "not a JSON schema"),
    ({"prompt": PROMPT, "model": "m", "output_type": "Triage"}, "'Triage' is a text"),
    ({"chain": 7}, "or a ChainSpec, not a int"),
]


@pytest.mark.parametrize(("given", "says"), REFUSALS)
def test_what_is_refused_leaves_nothing(
    traceless: Deployment, given: dict[str, Any], says: str
) -> None:
    with pytest.raises(SubmitRefused) as raised:
        traceless.client.submit(inputs=ROWS, **given)
    assert says in str(raised.value)


class Lying(ChainSpec, frozen=True):
    """A producer that records another chain than it names."""

    def as_json(self) -> str:
        return ChainSpec(prompt="another", model="m").as_json()

    @property
    def name(self) -> str:
        return "prompt@000000000000"


def test_a_spec_that_is_not_the_named_one_is_not_run(client: Client, server: OpenAIServer) -> None:
    batch = client.submit(Lying(prompt=PROMPT, model="m"), ROWS)
    assert {item.error.code for item in batch.results() if item.error} == {"bad_spec"}
    assert batch.record().request_counts.failed == 2
    assert server.requests == []
