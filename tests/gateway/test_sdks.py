"""The official SDKs in their other forms: Python's async one, and Node's."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.api_server import CHAT, ApiServer, ended, jsonl, make, request
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(240)

_SCRIPT = Path(__file__).parent.parent / "support" / "node_client.mjs"


def test_the_async_sdk(api: ApiServer, provider: OpenAIServer) -> None:
    provider.fail_when("text 1", status=400)

    async def run() -> tuple[Any, list[str], list[str], list[str]]:
        key = api.keys["ann"]
        async with openai.AsyncOpenAI(base_url=f"{api.root}/v1", api_key=key) as client:
            content = jsonl(request(i) for i in range(4))
            file = await client.files.create(file=("a.jsonl", content), purpose="batch")
            batch = await client.batches.create(
                input_file_id=file.id, endpoint=CHAT, completion_window="24h"
            )
            while batch.status not in ("completed", "failed"):
                await asyncio.sleep(0.05)
                batch = await client.batches.retrieve(batch.id)
            assert batch.output_file_id is not None
            streamed = client.files.with_streaming_response.content(batch.output_file_id)
            async with streamed as answer:
                lines = [line async for line in answer.iter_lines()]
            files = [each.id async for each in client.files.list(limit=1)]
            batches = [each.id async for each in client.batches.list(limit=1)]
            return batch, lines, files, batches

    batch, lines, files, batches = asyncio.run(run())
    assert batch.status == "completed"
    assert [json.loads(line)["custom_id"] for line in lines] == [f"request-{i}" for i in (0, 2, 3)]
    assert {batch.input_file_id, batch.output_file_id, batch.error_file_id} <= {*files}
    assert len(files) == len({*files})
    assert batch.id in batches


def test_content_streams_with_the_sync_sdk(client: openai.OpenAI) -> None:
    done = ended(client, make(client, [request(i) for i in range(3)]))
    with client.files.with_streaming_response.content(done.output_file_id) as answer:
        lines = [json.loads(line) for line in answer.iter_lines()]
    assert [line["custom_id"] for line in lines] == [f"request-{i}" for i in range(3)]


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the official Node SDK, as npm has it."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("no Node here: `node` and `npm` are needed to test the Node SDK")
    folder = tmp_path_factory.mktemp("node")
    command = ["npm", "install", "openai@6", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry does not answer: the Node SDK cannot be installed")
    if done.returncode:
        pytest.skip(f"npm cannot install the Node SDK: {done.stderr[-300:]}")
    return folder


def test_the_node_sdk(node: Path, api: ApiServer, provider: OpenAIServer) -> None:
    provider.fail_when("text 1", status=400)
    (node / "requests.jsonl").write_bytes(jsonl(request(i) for i in range(4)))
    script = shutil.copy(_SCRIPT, node / "client.mjs")

    done = subprocess.run(
        ["node", str(script), "requests.jsonl", CHAT],
        cwd=node,
        env={
            **os.environ,
            "OPENAI_BASE_URL": f"{api.root}/v1",
            "OPENAI_API_KEY": api.keys["bob"],
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["first"], seen["status"]) == ("validating", "completed")
    assert seen["filename"] == "requests.jsonl"
    assert seen["lifetime"] == 3600
    assert seen["counts"] == {"total": 4, "completed": 3, "failed": 1}
    ids = [json.loads(line)["custom_id"] for line in seen["output"]]
    assert ids == ["request-0", "request-2", "request-3"]
    [error] = map(json.loads, seen["errors"])
    assert (error["error"], error["response"]["status_code"]) == (None, 400)
    assert {*seen["mine"]} <= {*seen["files"]}
    assert seen["batch"] in seen["batches"]
    assert seen["deleted"] is True
    assert seen["error"] == ["NotFoundError", 404, "invalid_request_error", True]
