"""Provider mode: through the provider's own Batch API, and the same batch to its caller."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from batchord.chains import Chat, Embed, Lambda, Prompt, Responses, register
from batchord.chains.steps.offline_call import why_not_offline
from batchord.ledger.budget import Budget
from batchord.ledger.models import BatchStatus, Item, ItemStatus
from batchord.producer import Batch, RemoteRunnable
from batchord.worker.provider_batch.lost_replies import LOOKS
from tests.chains_for_tests.basic import Question, tagged
from tests.conftest import Deploy
from tests.support.harness import Deployment, provider_env, refused, wait_until
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(90)

MODEL = "test-model"
FAST: dict[str, Any] = {
    "sweep_interval": 0.1,
    "provider_poll": 0.1,
    "lease": 2.0,
    "shard_size": 20,
    "alike_limit": 0,
}
#: As the workers have them.
CHAINS: dict[str, Any] = {
    "ask": Prompt("Say {word}") | Chat(MODEL),
    "ask-framed": Prompt("Say {word}") | Chat(MODEL) | str.upper,
    "ask-tagged": Lambda(tagged) | Chat(MODEL) | Lambda(tagged),
    "ask-typed": Chat(MODEL, output_type=Question),
    "ask-twice": Chat(MODEL) | Chat(MODEL),
    "respond": Responses(MODEL, output_type=Question),
    "embed-one": Embed("test-embedding", dimensions=4),
}


#: This many requests go in one of the provider's batches here.
REQUESTS = 400
PRICES = {
    "half": {"input": 2, "output": 10, "batch": 0.5},
    "whole": {"input": 2, "output": 10},
}


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def provider(server: OpenAIServer) -> OpenAIServer:
    server.reset()
    return server


@pytest.fixture(scope="module")
def deployment(deploy_for_module: Deploy, server: OpenAIServer) -> Deployment:
    """Two workers for the tests of this module, that know the provider."""
    for name, chain in CHAINS.items():
        register(name, chain, replace=True)
    deployment = deploy_for_module(**FAST, provider_requests=REQUESTS)
    start(deployment, server)
    return deployment


def start(deployment: Deployment, provider: OpenAIServer) -> None:
    """Start two workers that know the provider, and what it costs."""
    prices = deployment.folder / "prices.json"
    prices.write_text(json.dumps(PRICES))
    env = {**provider_env(provider), "OPENAI_MODEL": MODEL, "BATCHORD_PRICES": str(prices)}
    for worker in [deployment.start_worker(env=env, wait=False) for _ in range(2)]:
        deployment.wait_for_worker(worker)


def submit(deployment: Deployment, chain: str, inputs: list[Any], **options: Any) -> Batch:
    return deployment.client.submit(chain, inputs, mode="provider", **options)


def live_calls(provider: OpenAIServer) -> int:
    paths = ("/v1/chat/completions", "/v1/responses", "/v1/embeddings")
    return sum(request.path in paths for request in provider.requests)


def codes(items: list[Item]) -> list[str | None]:
    return [None if item.error is None else item.error.code for item in items]


def words(n: int) -> list[str]:
    return [f"number {i}" for i in range(n)]


def test_a_batch_goes_in_parts_and_comes_back_in_order(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    names = [f"own-{i}" for i in range(1000)]
    batch = submit(deployment, "ask-framed", words(1000), custom_ids=names)
    record = batch.wait(60)
    assert (record.status, record.request_counts.succeeded) == (BatchStatus.COMPLETED, 1000)
    items = list(batch.results())
    assert [item.output for item in items] == [f"ECHO: SAY NUMBER {i}" for i in range(1000)]
    assert [item.custom_id for item in items] == names
    assert {item.attempts for item in items} == {1}
    sizes = [len(provider.batches.requests_of(each)) for each in provider.batches.batches.values()]
    assert sizes == [REQUESTS, REQUESTS, 200]
    assert provider.batches.executed == {f"{batch.id}:{i}": 1 for i in range(1000)}
    assert live_calls(provider) == 0
    assert record.usage is not None
    assert (record.usage.requests, record.usage.input_tokens) == (1000, 3 * 1000)


@pytest.mark.parametrize(
    ("chain", "text", "output"),
    [
        ("ask", "hi", "echo: Say hi"),
        ("ask-typed", "hi", {"text": "echo: hi", "times": 0}),
        ("respond", "hi", {"text": "echo: hi", "times": 0}),
    ],
)
def test_each_kind_of_call_gives_what_it_gives_live(
    deployment: Deployment, provider: OpenAIServer, chain: str, text: str, output: Any
) -> None:
    there = submit(deployment, chain, [text] * 2)
    here = deployment.client.submit(chain, [text])
    assert there.wait(30).status is BatchStatus.COMPLETED
    here.wait(30)
    assert there.outputs() == [output] * 2
    assert here.outputs() == [output]
    [line, _] = provider.batches.requests_of(next(iter(provider.batches.batches.values())))
    [live] = [one for one in provider.requests if one.path == line["url"]]
    assert line["body"] == live.body


def test_functions_around_the_call_are_told_the_config(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    there = submit(deployment, "ask-tagged", ["hi"], config={"tags": ["t"]})
    assert there.outputs() == ["t echo: t hi"]


def test_vectors_are_the_same_as_live(deployment: Deployment, provider: OpenAIServer) -> None:
    chain = RemoteRunnable("embed-one", client=deployment.client, mode="provider")
    live = RemoteRunnable("embed-one", client=deployment.client)
    assert chain.batch(["a", "b"]) == live.batch(["a", "b"])
    assert len(provider.batches.executed) == 2


def test_what_is_not_one_call_is_refused_with_the_reason(deploy: Deploy) -> None:
    for name in ("ask", "ask-twice"):
        register(name, CHAINS[name], replace=True)
    traceless = deploy()
    said = refused(traceless, "ask-twice", ["a"], mode="provider")
    assert "makes 2 calls" in said
    assert "mode" in refused(traceless, "ask", ["a"], mode="batch")
    assert "provider_retry" in refused(traceless, "ask", ["a"], provider_retry="live")
    assert "provider_retry" in refused(
        traceless, "ask", ["a"], mode="provider", provider_retry="soon"
    )
    assert traceless.redis.keys() == []


def test_which_chains_can_be_sent() -> None:
    chat = Chat(MODEL)
    for chain in (chat, Prompt("{a}") | chat, {"a": Lambda(str)} | chat | str.upper, Embed()):
        assert why_not_offline(chain) is None
    for chain, why in (
        (Lambda(str), "no step that is a Chat"),
        (chat | {"a": Lambda(str), "b": chat}, "neither a prompt nor a function"),
        (chat.with_retry(), "neither a prompt nor a function"),
        (chat | chat | chat, "makes 3 calls"),
        (Chat(MODEL, extra_headers={"x": "y"}), "extra_headers"),
    ):
        assert why in str(why_not_offline(chain))


def test_lines_that_fail_fail_their_items_as_a_live_call_would(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    provider.fail_when("bad", status=400)
    provider.fail_when("busy", status=503)
    provider.refuse_when("rude")
    provider.garbage_when("junk")
    batch = submit(deployment, "ask-typed", ["fine", "bad", "busy", "rude", "junk", ""])
    record = batch.wait(30)
    assert record.status is BatchStatus.COMPLETED
    items = list(batch.results())
    assert codes(items) == [
        None,
        "bad_request",
        "server_error",
        "refusal",
        "invalid_output",
        None,
    ]
    assert [item.error.retryable for item in items if item.error] == [False, True, False, False]
    assert items[1].error is not None
    assert (items[1].error.http_status, items[1].error.step) == (400, "Chat")
    assert items[4].error is not None
    assert items[4].error.raw == "This is not what the schema asked for."
    assert items[4].usage is not None
    assert items[4].usage.output_tokens, "an answer that does not fit was paid for"
    assert live_calls(provider) == 0


def test_what_may_succeed_runs_live_if_asked_and_nothing_else_does(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    provider.fail_when("bad", status=400)
    provider.fail_next(503, match="busy")
    provider.garbage_when("junk", n=1)
    provider.batches.behaviour.lose = 1
    inputs = ["fine", "bad", "busy", "junk", *words(30)]
    batch = submit(deployment, "ask-typed", inputs, provider_retry="live")
    record = batch.wait(30)
    assert record.status is BatchStatus.COMPLETED
    assert codes(list(batch.results())) == [None, "bad_request", *[None] * 32]
    assert live_calls(provider) == 3, "busy, junk, and the answer that was lost"
    assert record.usage is not None
    assert record.usage.requests == 33 + 3


@pytest.mark.parametrize("retry", [None, "live"])
def test_answers_out_of_order_twice_missing_or_to_nothing_are_reconciled(
    deployment: Deployment, provider: OpenAIServer, retry: Any
) -> None:
    how = provider.batches.behaviour
    how.lose, how.repeat, how.strangers = 2, True, True
    batch = submit(deployment, "ask", words(50), provider_retry=retry)
    record = batch.wait(30)
    assert record.status is BatchStatus.COMPLETED
    found = [item.error.code for item in batch.results() if item.error]
    assert found == ([] if retry else ["no_answer"] * 2)
    good = [item for item in batch.results() if item.error is None]
    assert [item.output for item in good] == [f"echo: Say number {item.index}" for item in good]
    assert live_calls(provider) == (2 if retry else 0)
    how.lose = 0
    if retry is None:
        batch.retry_failed()
        assert batch.wait(30).request_counts.succeeded == 50
        assert live_calls(provider) == 2
        assert provider.batches.executed.total() == 50


@pytest.mark.parametrize("retry", [None, "live"])
def test_what_an_expired_batch_has_done_is_read(
    deployment: Deployment, provider: OpenAIServer, retry: Any
) -> None:
    provider.batches.behaviour.expire_after = 30
    batch = submit(deployment, "ask", words(50), provider_retry=retry)
    record = batch.wait(30)
    assert record.status is BatchStatus.COMPLETED
    found = [item.error for item in batch.results() if item.error]
    assert [error.code for error in found] == ([] if retry else ["batch_expired"] * 20)
    assert all(error.retryable for error in found)
    assert live_calls(provider) == (20 if retry else 0)
    assert provider.batches.executed.total() == 30


def in_progress(provider: OpenAIServer) -> bool:
    found = provider.batches.batches.values()
    return bool(found) and all(each["status"] == "in_progress" for each in found)


def test_cancel_cancels_there_and_keeps_what_was_paid_for(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    how = provider.batches.behaviour
    how.held, how.done_when_cancelled = True, 10
    batch = submit(deployment, "ask", words(50), provider_retry="live")
    wait_until(lambda: in_progress(provider), what="the provider works")
    next(iter(provider.batches.batches.values()))["request_counts"]["completed"] = 12
    wait_until(lambda: batch.record().provider_done == 12, what="its progress is seen")
    assert batch.record().request_counts.done == 0
    assert batch.cancel() is BatchStatus.CANCELLING
    record = batch.wait(30)
    counts = record.request_counts
    assert (record.status, counts.succeeded, counts.cancelled) == (BatchStatus.CANCELLED, 10, 40)
    assert [each["status"] for each in provider.batches.batches.values()] == ["cancelled"]
    assert live_calls(provider) == 0


def test_a_completion_window_that_is_over_ends_it_there_too(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    how = provider.batches.behaviour
    how.held, how.done_when_cancelled = True, 10
    batch = submit(deployment, "ask", words(50), completion_window="2s")
    record = batch.wait(30)
    counts = record.request_counts
    assert (record.status, counts.succeeded, counts.expired) == (BatchStatus.EXPIRED, 10, 40)
    assert [each["status"] for each in provider.batches.batches.values()] == ["cancelled"]


#: Words of a batch that is paused while it is at the provider, and how many of them fail.
PAUSED: dict[str, tuple[list[str], int]] = {
    "all succeed": (words(50), 0),
    "some fail": ([*words(20), "bad", "bad"], 2),
    "all fail": (["bad"] * 30, 30),
}


@pytest.mark.parametrize("name", PAUSED)
def test_a_batch_that_is_paused_there_and_has_nothing_left_to_do_completes(
    deployment: Deployment, provider: OpenAIServer, name: str
) -> None:
    texts, bad = PAUSED[name]
    provider.fail_when("bad", status=400)
    how = provider.batches.behaviour
    how.held = True
    batch = submit(deployment, "ask", texts, completion_window="1h")
    wait_until(lambda: in_progress(provider), what="the provider works")
    assert batch.pause() is BatchStatus.PAUSED
    how.held = False
    record = batch.wait(30)
    assert (record.status, record.request_counts.failed) == (BatchStatus.COMPLETED, bad)
    assert record.request_counts.succeeded == len(texts) - bad
    assert provider.batches.executed.total() == len(texts)
    assert deployment.redis.ttl(f"batchord:{{{batch.id}}}:meta") > 0


def test_a_batch_that_is_paused_there_waits_for_what_is_to_run_live(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    how = provider.batches.behaviour
    how.held, how.lose = True, 1
    batch = submit(deployment, "ask", words(30), provider_retry="live")
    wait_until(lambda: in_progress(provider), what="the provider works")
    assert batch.pause() is BatchStatus.PAUSED
    how.held = False
    wait_until(lambda: batch.record().request_counts.done == 29, what="what was answered is taken")
    assert (batch.record().status, live_calls(provider)) == (BatchStatus.PAUSED, 0)
    batch.resume()
    assert batch.wait(30).request_counts.succeeded == 30
    assert live_calls(provider) == 1


def test_a_batch_that_the_provider_refuses_pauses_and_is_sent_anew_after_a_resume(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    provider.batches.behaviour.refuse = "model_not_found"
    batch = submit(deployment, "ask", words(5))
    wait_until(lambda: batch.record().status is BatchStatus.PAUSED, what="it pauses")
    reason = batch.record().reason
    assert reason is not None
    assert (reason.code, reason.message) == ("model_not_found", "told to fail")
    assert provider.batches.executed.total() == 0
    batch.resume()
    assert batch.wait(30).request_counts.succeeded == 5
    assert len(provider.batches.batches) == 2


def test_a_provider_that_has_no_room_now_is_asked_again_later(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    how = provider.batches.behaviour
    how.refuse, how.refusals = "token_limit_exceeded", 2
    batch = submit(deployment, "ask", words(5))
    assert batch.wait(30).request_counts.succeeded == 5
    assert (len(provider.batches.uploads), len(provider.batches.batches)) == (1, 3)
    assert provider.batches.executed.total() == 5


@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches"])
def test_a_key_that_is_refused_pauses_and_nothing_is_done_twice_after_a_resume(
    deployment: Deployment, provider: OpenAIServer, path: str
) -> None:
    provider.fail_when(path, status=401)
    batch = submit(deployment, "ask", words(5))
    wait_until(lambda: batch.record().status is BatchStatus.PAUSED, what="it pauses")
    reason = batch.record().reason
    assert reason is not None
    assert reason.code == "authentication_error"
    provider.forget_rules()
    batch.resume()
    assert batch.wait(30).request_counts.succeeded == 5
    assert (len(provider.batches.uploads), len(provider.batches.batches)) == (1, 1)


def test_a_provider_that_stumbles_while_it_is_asked_is_asked_again(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    provider.fail_next(503, match="/v1/files", n=2)
    provider.fail_next(500, match="/v1/batches", n=2)
    batch = submit(deployment, "ask", words(5))
    wait_until(lambda: in_progress(provider) or batch.record().status.ended, what="it is created")
    provider.fail_next(502, match="/v1/batches/", n=3)
    assert batch.wait(30).request_counts.succeeded == 5
    assert (len(provider.batches.uploads), len(provider.batches.batches)) == (1, 1)


#: What is created without a reply, how late it is listed, and how many are created in all.
LOST = {
    "an upload, listed at once": ("lose_uploads", 0, 1),
    "an upload, listed at the second look": ("lose_uploads", 1, 1),
    "an upload, listed never": ("lose_uploads", 10**6, 1),
    "a batch, listed at once": ("lose_creates", 0, 1),
    "a batch, listed at the second look": ("lose_creates", 1, 1),
    "a batch, listed at the third look": ("lose_creates", 2, 1),
    "a batch, listed at the last look": ("lose_creates", LOOKS - 1, 1),
    "a batch, listed after a second one was created": ("lose_creates", LOOKS, 2),
}


@pytest.mark.parametrize("name", LOST)
def test_a_lost_reply_costs_no_second_batch_that_is_billed(
    deployment: Deployment, provider: OpenAIServer, name: str
) -> None:
    what, late, batches = LOST[name]
    how = provider.batches.behaviour
    setattr(how, what, 1)
    how.list_late = late
    batch = submit(deployment, "ask", words(5))
    assert batch.wait(60).request_counts.succeeded == 5
    made = list(provider.batches.batches.values())
    assert len(made) == batches
    billed = [each for each in made if each["status"] not in ("cancelling", "cancelled")]
    assert len(billed) == 1
    assert provider.batches.executed == {f"{batch.id}:{i}": 1 for i in range(5)}
    # A file that is listed too late is deleted, and never the one that is used.
    files = {each["id"] for each in provider.batches.uploads}
    assert {each["input_file_id"] for each in billed} <= files
    assert len(files) == (2 if (what, late) == ("lose_uploads", 10**6) else 1)


def test_a_batch_that_is_listed_after_a_cancel_is_cancelled_too(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    how = provider.batches.behaviour
    how.held, how.lose_creates, how.list_late = True, 1, 2
    batch = submit(deployment, "ask", words(5))
    wait_until(lambda: len(provider.batches.batches) == 1, what="it is created")
    batch.cancel()
    assert batch.wait(30).request_counts.cancelled == 5
    assert [each["status"] for each in provider.batches.batches.values()] == ["cancelled"]


def test_a_batch_that_is_listed_never_is_created_once_more(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    how = provider.batches.behaviour
    how.lose_creates, how.list_late = 1, 10**6
    batch = submit(deployment, "ask", words(5))
    assert batch.wait(60).request_counts.succeeded == 5
    assert len(provider.batches.batches) == 2
    keys = {
        one.headers.get("idempotency-key")
        for one in provider.requests
        if one.path == "/v1/batches" and "input_file_id" in one.body
    }
    assert len(keys) == 1, "a provider that knows the key makes no second one"


@pytest.mark.parametrize(
    ("path", "field"), [("/v1/files", "content"), ("/v1/batches", "input_file_id")]
)
@pytest.mark.parametrize("status", [429, 503])
def test_what_the_provider_asks_to_wait_is_waited(
    deployment: Deployment, provider: OpenAIServer, path: str, field: str, status: int
) -> None:
    """The sweep looks at the batch twenty times in these two seconds."""
    provider.fail_next(status, match=path, retry_after=2)
    batch = submit(deployment, "ask", words(5))
    assert batch.wait(60).request_counts.succeeded == 5
    posts = [one for one in provider.requests if one.path == path and field in one.body]
    assert [one.status for one in posts] == [status, 200]
    assert posts[1].started - posts[0].started >= 2
    assert (len(provider.batches.uploads), len(provider.batches.batches)) == (1, 1)


def test_other_batches_run_while_the_provider_is_silent(
    deploy: Deploy, deployment: Deployment, provider: OpenAIServer
) -> None:
    deployment = deploy(**FAST)
    provider.hang_when("/v1/files")
    start(deployment, provider)
    slow = submit(deployment, "ask", words(5))
    wait_until(lambda: provider.in_flight == 1, what="the poller waits")
    assert deployment.client.submit("ask", words(40)).wait(20).request_counts.succeeded == 40
    assert slow.record().request_counts.done == 0
    assert slow.cancel() is BatchStatus.CANCELLING
    for process in deployment.processes:
        process.kill()
    provider.forget_rules()
    start(deployment, provider)
    assert slow.wait(30).status is BatchStatus.CANCELLED


def test_costs_are_those_of_a_batch_and_unknown_where_the_table_does_not_say(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    provider.answers_as = {"cheap": "half", "dear": "whole"}
    batch = submit(deployment, "ask", ["cheap", "dear"])
    batch.wait(30)
    cheap, dear = (item.usage for item in batch.results())
    assert cheap is not None
    assert dear is not None
    # "Say cheap" and "echo: Say cheap": 2 tokens in, 3 out.
    assert cheap.cost_usd == pytest.approx((2 * 2 + 3 * 10) / 2 / 1e6)
    assert dear.cost_usd is None


def test_with_a_budget_parts_go_one_by_one(deployment: Deployment, provider: OpenAIServer) -> None:
    # Three tokens in and four out for each.
    batch = submit(deployment, "ask", words(3 * REQUESTS), budget=Budget(tokens=8 * REQUESTS))
    wait_until(lambda: batch.record().status is BatchStatus.PAUSED, what="the budget is used up")
    wait_until(
        lambda: batch.record().request_counts.done == 2 * REQUESTS,
        what="what was paid for is there",
    )
    assert provider.batches.executed.total() == 2 * REQUESTS
    batch.resume(budget=Budget(tokens=100 * REQUESTS))
    assert batch.wait(30).request_counts.succeeded == 3 * REQUESTS
    assert provider.batches.executed.total() == 3 * REQUESTS


def test_files_are_as_large_as_they_may_be_and_a_request_that_fits_in_none_fails(
    deploy: Deploy, provider: OpenAIServer, deployment: Deployment
) -> None:
    deployment = deploy(**FAST, provider_bytes=10_000)
    start(deployment, provider)
    inputs = ["x" * 2_000 for _ in range(20)]
    inputs[7] = "x" * 20_000
    batch = submit(deployment, "ask", inputs)
    assert batch.wait(30).request_counts.failed == 1
    found = codes(list(batch.results()))
    assert found == [None] * 7 + ["request_too_large"] + [None] * 12
    sizes = [each["bytes"] for each in provider.batches.uploads]
    assert len(sizes) == 5, "four requests in each"
    assert max(sizes) <= 10_000
    assert provider.batches.executed.total() == 19


def test_an_item_that_cannot_come_to_a_request_fails_and_the_others_go(
    deployment: Deployment, provider: OpenAIServer
) -> None:
    batch = submit(deployment, "ask", ["fine", {"other": 1}, "fine"])
    assert batch.wait(30).request_counts.failed == 1
    items = list(batch.results())
    assert [item.status for item in items][1] is ItemStatus.FAILED
    assert codes(items) == [None, "prompt_field_missing", None]
    nothing = submit(deployment, "ask", [{"other": 1}])
    assert nothing.wait(30).request_counts.failed == 1
    assert len(provider.batches.batches) == 1
