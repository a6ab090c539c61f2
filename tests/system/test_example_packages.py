"""The example that the demo runs: its inputs are real, and its bad inputs fail as they should."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchord.chains import explain
from examples import make_inputs
from examples.packages import PackageCard, describe_package
from tests.support.openai_server import OpenAIServer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "test")
        monkeypatch.setenv("OPENAI_MODEL", "test-model")
        yield server


def made(*options: str) -> list[dict[str, Any]]:
    command = [sys.executable, str(ROOT / "examples" / "make_inputs.py"), *options]
    written = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in written.splitlines()]


def test_each_bad_input_fails_in_its_own_way_and_no_other_does(server: OpenAIServer) -> None:
    lines = made("--count", "12")
    inputs = {line["custom_id"]: line["input"] for line in lines}
    assert len(inputs) == 16
    # A model's own limit: the server for tests has none.
    server.fail_when(" ".join(inputs["bad-too-long"]["description"].split()), status=400)

    outputs = describe_package.batch(list(inputs.values()), return_exceptions=True)

    ended = dict(zip(inputs, outputs, strict=True))
    codes = {name: explain(ended.pop(name)).code for name in inputs if name.startswith("bad-")}
    assert codes == {
        "bad-missing-field": "prompt_field_missing",
        "bad-wrong-type": "invalid_input",
        "bad-too-long": "bad_request",
        "bad-empty": "ValueError",
    }
    for name, card in ended.items():
        assert isinstance(card, PackageCard)
        assert card.name == name


def test_the_bad_inputs_can_be_left_out() -> None:
    assert len(made("--count", "3", "--no-bad")) == 3


def test_a_prompt_stays_within_what_a_small_model_can_take() -> None:
    for package in make_inputs.installed():
        assert len(make_inputs.opening(package["description"])) <= make_inputs.OPENING


def test_an_opening_is_the_first_prose_of_a_readme() -> None:
    readme = """[![build](https://example.com/badge)](https://example.com)

Title
=====

.. image:: logo.png

`Toolkit` for *parsing* things,
fast and small.

More.
"""
    assert make_inputs.opening(readme) == "Toolkit for parsing things, fast and small."
    assert make_inputs.opening("# Title\n\n```\ncode\n```") == ""
