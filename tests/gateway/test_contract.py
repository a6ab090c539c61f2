"""The contract of OpenAI's Files and Batch API, by the official SDK, on a real server."""

import json
from typing import Any

import openai
import pytest

from tests.support.api_server import CHAT, ApiServer, ended, jsonl, lines_of, make, request
from tests.support.harness import Deployment, wait_until
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(120)

#: Every key of the batch object, always there.
KEYS = {
    *("id", "object", "endpoint", "model", "errors", "input_file_id", "completion_window"),
    *("status", "output_file_id", "error_file_id", "created_at", "in_progress_at", "expires_at"),
    *("finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at"),
    *("cancelled_at", "request_counts", "usage", "metadata", "batchord"),
}


def test_a_batch_from_upload_to_output_in_input_order(
    client: openai.OpenAI, provider: OpenAIServer, fleet: Deployment
) -> None:
    provider.delay = lambda text: 0.05 if text.endswith("0") else 0.0
    provider.fail_when("text 3", status=400, message="no such thing")
    file = client.files.create(
        file=("requests.jsonl", jsonl(request(i) for i in range(12))), purpose="batch"
    )
    assert (file.object, file.purpose, file.status) == ("file", "batch", "processed")
    assert (file.filename, file.id[:5]) == ("requests.jsonl", "file-")
    assert file.expires_at is not None
    assert file.expires_at - file.created_at == 30 * 24 * 3600
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint=CHAT,
        completion_window="24h",
        metadata={"team": "a"},
    )
    assert batch.status == "validating"
    assert batch.request_counts is not None
    assert batch.request_counts.total == 0
    assert batch.expires_at == batch.created_at + 24 * 3600

    done = ended(client, batch)

    assert json.loads(done.model_dump_json()).keys() >= KEYS
    assert done.status == "completed"
    assert done.metadata == {"team": "a"}
    assert done.model == "m"
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (12, 11, 1)
    assert done.usage.input_tokens == 11 * 2
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens
    assert done.usage.input_tokens_details.cached_tokens == 0
    times = [done.created_at, done.in_progress_at, done.finalizing_at, done.completed_at]
    assert all(type(each) is int for each in times)
    assert times == sorted(times)
    _check_lines(*(lines_of(client, each) for each in (done.output_file_id, done.error_file_id)))
    # As any other batch of the fleet's.
    record = fleet.client.retrieve(batch.id).record()
    assert (record.chain, record.metadata) == ("openai-requests", {"team": "a"})
    assert batch.id in [each.id for each in fleet.client.list()]


def _check_lines(output: list[dict[str, Any]], errors: list[dict[str, Any]]) -> None:
    assert [line["custom_id"] for line in output] == [f"request-{i}" for i in range(12) if i != 3]
    for line in output:
        assert line.keys() == {"id", "custom_id", "response", "error"}
        assert line["id"].startswith("batch_req_")
        assert line["error"] is None
        assert line["response"].keys() == {"status_code", "request_id", "body"}
        number = line["custom_id"].partition("-")[2]
        content = line["response"]["body"]["choices"][0]["message"]["content"]
        assert content == f"echo: text {number}"
    [refused] = errors
    assert (refused["custom_id"], refused["error"]) == ("request-3", None)
    assert refused["response"]["status_code"] == 400
    assert refused["response"]["body"]["error"]["message"] == "no such thing"


def _no_lines(client: openai.OpenAI, provider: OpenAIServer) -> Any:
    return make(client, [request(0)])


def _all_fail(client: openai.OpenAI, provider: OpenAIServer) -> Any:
    provider.fail_when("text", status=400)
    return make(client, [request(i) for i in range(40)])


FILES = {
    "nothing failed: no error file": (_no_lines, (1, 1, 0), True, False),
    "all failed: completed, no output file": (_all_fail, (40, 0, 40), False, True),
}


@pytest.mark.parametrize("case", FILES)
def test_no_file_for_no_lines(client: openai.OpenAI, provider: OpenAIServer, case: str) -> None:
    begin, counts, output, error = FILES[case]
    done = ended(client, begin(client, provider))
    assert done.status == "completed"
    found = done.request_counts
    assert (found.total, found.completed, found.failed) == counts
    assert (done.output_file_id is not None, done.error_file_id is not None) == (output, error)


def test_files_are_listed_paged_ranged_and_deleted(api: ApiServer, client: openai.OpenAI) -> None:
    names = [f"{i}.jsonl" for i in range(5)]
    made = [
        client.files.create(
            file=(name, jsonl([request(0)])),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": 3600},
        )
        for name in names
    ]
    assert made[0].expires_at == made[0].created_at + 3600
    mine = {each.id for each in made}
    listed = [each.id for each in client.files.list(limit=2) if each.id in mine]
    assert listed == [each.id for each in made[::-1]]
    upwards = [each.id for each in client.files.list(limit=3, order="asc", purpose="batch")]
    assert [each for each in upwards if each in mine] == [each.id for each in made]
    content = client.files.content(made[0].id)
    assert content.read() == jsonl([request(0)])
    part = client.files.content(made[0].id, extra_headers={"Range": "bytes=1-9"})
    assert part.read() == jsonl([request(0)])[1:10]
    assert part.response.status_code == 206
    assert part.response.headers["content-range"].startswith("bytes 1-9/")
    deleted = client.files.delete(made[0].id)
    assert (deleted.id, deleted.deleted) == (made[0].id, True)
    assert made[0].id not in api.files
    with pytest.raises(openai.NotFoundError) as caught:
        client.files.retrieve(made[0].id)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id


def test_output_files_are_files_of_the_owner(client: openai.OpenAI, provider: OpenAIServer) -> None:
    provider.fail_when("text 1", status=422)
    done = ended(client, make(client, [request(i) for i in range(40)]))
    assert {done.output_file_id, done.error_file_id} <= {each.id for each in client.files.list()}
    found = client.files.retrieve(done.output_file_id)
    whole = client.files.content(found.id).read()
    assert (found.purpose, found.bytes) == ("batch_output", len(whole))
    some = client.files.content(found.id, extra_headers={"Range": "bytes=100-299"}).read()
    assert some == whole[100:300]
    tail = client.files.content(found.id, extra_headers={"Range": "bytes=-50"}).read()
    assert tail == whole[-50:]
    client.files.delete(found.id)
    with pytest.raises(openai.NotFoundError):
        client.files.content(found.id)
    assert found.id not in {each.id for each in client.files.list(purpose="batch_output")}


def test_batches_are_listed_in_pages_the_newest_first(
    api: ApiServer, provider: OpenAIServer
) -> None:
    with api.client("bob") as bob:
        made = [make(bob, [request(0)]).id for _ in range(5)]
        assert [each.id for each in bob.batches.list(limit=2)] == made[::-1]
        first = bob.batches.list(limit=2)
        assert (first.has_more, len(first.data)) == (True, 2)
        assert bob.batches.list(limit=5).has_more is False


def _completed(client: openai.OpenAI, batch_id: str) -> int:
    counts = client.batches.retrieve(batch_id).request_counts
    return 0 if counts is None else counts.completed


def test_cancelled_what_has_not_run_is_told_so(
    client: openai.OpenAI, provider: OpenAIServer
) -> None:
    provider.hang_when("text 1")
    batch = make(client, [request(0, "quick"), *(request(i) for i in range(10, 14))])
    wait_until(
        lambda: _completed(client, batch.id) == 1, "the first request is answered", timeout=60
    )
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled"), "again"
    done = ended(client, batch)
    assert done.status == "cancelled"
    assert done.cancelled_at >= done.cancelling_at
    assert (done.request_counts.completed, done.request_counts.failed) == (1, 0)
    assert [line["custom_id"] for line in lines_of(client, done.output_file_id)] == ["request-0"]
    for line in lines_of(client, done.error_file_id):
        assert line["response"] is None
        assert line["error"]["code"] == "batch_cancelled"


def test_expired_what_has_not_run_is_told_so(client: openai.OpenAI, provider: OpenAIServer) -> None:
    provider.hang_when("text 1")
    lines = [request(0, "quick"), request(10)]
    window: Any = "5s"
    done = ended(client, make(client, lines, completion_window=window))
    assert done.status == "expired"
    assert done.expired_at >= done.expires_at == done.created_at + 5
    assert [line["custom_id"] for line in lines_of(client, done.output_file_id)] == ["request-0"]
    [late] = lines_of(client, done.error_file_id)
    assert late["error"]["code"] == "batch_expired"
    with pytest.raises(openai.BadRequestError):
        client.batches.cancel(done.id)


def test_an_input_file_may_go_once_its_batch_runs(
    api: ApiServer, client: openai.OpenAI, provider: OpenAIServer
) -> None:
    provider.delay = 0.2
    batch = make(client, [request(i) for i in range(30)])
    client.files.delete(batch.input_file_id)
    done = ended(client, batch)
    assert (done.status, done.request_counts.completed) == ("completed", 30)


def test_another_tenants_things_are_not_there(
    api: ApiServer, client: openai.OpenAI, provider: OpenAIServer
) -> None:
    done = ended(client, make(client, [request(0)]))
    with api.client("bob") as bob:
        for ask in (
            lambda: bob.files.retrieve(done.input_file_id),
            lambda: bob.files.content(done.output_file_id),
            lambda: bob.files.delete(done.input_file_id),
            lambda: bob.batches.retrieve(done.id),
            lambda: bob.batches.cancel(done.id),
            lambda: bob.batches.create(
                input_file_id=done.input_file_id, endpoint=CHAT, completion_window="24h"
            ),
        ):
            with pytest.raises(openai.NotFoundError):
                ask()
        assert done.id not in [each.id for each in bob.batches.list()]
        assert done.input_file_id not in [each.id for each in bob.files.list()]
    assert client.files.retrieve(done.input_file_id).id == done.input_file_id
