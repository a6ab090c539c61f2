"""Results as files: JSON lines or one matrix, whole or not at all."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchord.chains import Embed, register
from batchord.ledger.models import Item, ItemError, ItemStatus
from batchord.producer.export import Exported, NotVectors, write_matrix
from tests.conftest import Deploy
from tests.support import openai_answers
from tests.support.cli_harness import Shell, results
from tests.support.harness import Deployment, provider_env
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(60)

_EMBED = (
    "from batchord import Embed, register\nregister('embed', Embed('test-embedding', dimensions=8))"
)


@pytest.fixture
def provider(provider_for_module: OpenAIServer) -> OpenAIServer:
    return provider_for_module


@pytest.fixture(scope="module")
def embedding(deploy_for_module: Deploy, provider_for_module: OpenAIServer) -> Deployment:
    """A deployment whose worker embeds texts."""
    deployment = deploy_for_module()
    (deployment.folder / "embed_texts.py").write_text(_EMBED)
    env = provider_env(provider_for_module)
    deployment.start_worker(env=env | {"BATCHORD_CHAINS": "embed_texts"})
    register("embed", Embed("test-embedding", dimensions=8), replace=True)
    return deployment


def test_ten_thousand_short_texts_are_ten_requests_and_one_matrix_in_their_order(
    embedding: Deployment, provider: OpenAIServer, tmp_path: Path
) -> None:
    provider.reset()
    texts = [f"text {i}" for i in range(10_000)]

    batch = embedding.client.submit("embed", texts)
    exported = batch.export(tmp_path / "vectors.npy", output="npy")

    assert sum(len(request.body["input"]) for request in provider.requests) == 10_000
    assert len(provider.requests) <= 10
    assert exported == Exported(items=10_000, missing=0)
    matrix = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    assert (matrix.shape, matrix.dtype) == ((10_000, 8), np.dtype("float32"))
    for i in (0, 999, 1_000, 7_777, 9_999):
        np.testing.assert_allclose(matrix[i], openai_answers.vector(f"text {i}", 8), atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.npy"]


def test_a_failed_item_is_a_row_of_nan_and_the_count_is_said(
    embedding: Deployment, provider: OpenAIServer, tmp_path: Path
) -> None:
    provider.reset()
    shell = Shell(tmp_path / "shell", BATCHORD_REDIS_URL=embedding.url)
    try:
        batch = embedding.client.submit("embed", ["", "one", "", "two"])
        batch.wait(30)

        answer = shell.run("results", batch.id, "-o", "vectors.npy")

        assert answer.code == 0, answer.err
        assert answer.out == ""
        assert "vectors.npy (2 of 4 rows are NaN, for want of an output)" in answer.err
        matrix = np.load(shell.folder / "vectors.npy")
        assert np.isnan(matrix[[0, 2]]).all()
        np.testing.assert_allclose(matrix[3], openai_answers.vector("two", 8), atol=1e-6)
        assert shell.run("results", batch.id, "-o", "out.jsonl").code == 0
        lines = results(shell.folder / "out.jsonl")
        assert lines == [json.loads(item.model_dump_json()) for item in batch.items()]
        assert shell.run("results", batch.id, "--format", "npy").code == 2
        with pytest.raises(ValueError, match="output is one of jsonl, npy, csv"):
            batch.export(tmp_path / "out.xls", output="xls")  # type: ignore[arg-type]
    finally:
        shell.close()


def test_a_run_whose_outputs_are_no_vectors_keeps_them_as_lines_and_exits_2(
    tmp_path: Path,
) -> None:
    shell = Shell(tmp_path / "shell", BATCHORD_CHAINS="shouts")
    try:
        shell.module(
            "shouts", "from batchord.chains import register\nregister('shout', str.upper)\n"
        )
        shell.write("in.jsonl", ['"a"', '"b"'])
        answer = shell.run("run", "shout", "--processes", "1", "-i", "in.jsonl", "-o", "out.npy")
        assert answer.code == 2
        assert "the output of item 0 is not a list of numbers" in answer.err
        assert "The results are in out.npy.jsonl" in answer.err
        assert [one["output"] for one in results(shell.folder / "out.npy.jsonl")] == ["A", "B"]
        assert not (shell.folder / "out.npy").exists()
    finally:
        shell.close()


def vectors(*outputs: Any) -> list[Item]:
    """Items with these outputs; None is a failed one."""
    failure = ItemError(code="bad_request", message="no")
    return [
        Item(index=i, status=ItemStatus.FAILED, error=failure)
        if output is None
        else Item(index=i, status=ItemStatus.SUCCEEDED, output=output)
        for i, output in enumerate(outputs)
    ]


def test_rows_before_the_first_vector_are_nan_too(tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    items = vectors(None, None, [1, 2.5], None)
    assert write_matrix(path, items, 4) == Exported(items=4, missing=3)
    expected = np.array([[np.nan] * 2, [np.nan] * 2, [1, 2.5], [np.nan] * 2], np.float32)
    np.testing.assert_array_equal(np.load(path), expected)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([[1.0, 2.0], [1.0]], "item 1 has 1 numbers, those before it 2"),
        ([[1.0], "text"], "item 1 is not a list of numbers"),
        ([[[1.0], [2.0]]], "item 0 is not a list of numbers"),
        ([[True, False]], "item 0 is not a list of numbers"),
        ([[]], "item 0 is not a list of numbers"),
        ([[1.0], [1e39]], "item 1 has a number beyond 32 bits"),
        ([[10**400]], "item 0 has a number beyond 32 bits"),
        ([None, None], "no item has an output"),
    ],
)
def test_what_makes_no_matrix_is_refused_and_what_stood_there_stays(
    tmp_path: Path, outputs: list[Any], message: str
) -> None:
    path = tmp_path / "out.npy"
    path.write_bytes(b"kept")
    with pytest.raises(NotVectors, match=message):
        write_matrix(path, vectors(*outputs), len(outputs))
    assert path.read_bytes() == b"kept"
    assert list(tmp_path.iterdir()) == [path]


def test_a_matrix_is_written_in_constant_memory(tmp_path: Path) -> None:
    rows, columns = 4_000, 256
    row = [0.5] * columns
    items = (Item(index=i, status=ItemStatus.SUCCEEDED, output=row) for i in range(rows))
    write_matrix(tmp_path / "warm.npy", vectors(row), 1)

    tracemalloc.start()
    write_matrix(tmp_path / "out.npy", items, rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 500_000, "a tenth of the matrix"
    assert np.load(tmp_path / "out.npy", mmap_mode="r").shape == (rows, columns)
