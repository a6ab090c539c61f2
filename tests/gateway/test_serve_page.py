"""Lines of docs/serve.md, run as they stand there."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.api_server import ApiServer
from tests.support.openai_server import OpenAIServer

pytestmark = pytest.mark.timeout(240)

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"


def block(language: str, word: str) -> str:
    """The one block of the page in this language with this word in it."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    [one] = [each for each in found if word in each]
    return str(one)


class Shown(NamedTuple):
    """A block of the page, and the command that runs a file of it."""

    language: str
    word: str
    file: str
    command: list[str]
    #: The first line of what it prints, beside the lines of the output file.
    first: Callable[[str], Any]
    first_is: Any


def _object(line: str) -> Any:
    return json.loads(line)["object"]


SHOWN = {
    "Python": Shown("python", "openai.OpenAI", "a.py", [sys.executable], str, "completed 2 0"),
    "Node": Shown("js", "new OpenAI", "batch.mjs", ["node"], str, "completed 2 0"),
    "curl": Shown(
        "sh",
        "curl",
        "a.sh",
        ["sh", "-eu"],
        lambda line: json.loads(line)["object"],
        "batch.progress",
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_the_example_runs_as_it_stands_on_the_page(
    name: str,
    api: ApiServer,
    provider: OpenAIServer,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    shown = SHOWN[name]
    if name == "curl" and shutil.which("curl") is None:
        pytest.skip("no curl here")
    folder = request.getfixturevalue("node") if name == "Node" else tmp_path
    env = {**os.environ, "SERVE_URL": f"{api.root}/v1", "SERVE_KEY": api.keys["ann"]}
    file, _, _ = block("sh", "requests.jsonl <<").partition("export")
    subprocess.run(["sh", "-eu", "-c", file], cwd=folder, check=True, timeout=60)
    (folder / shown.file).write_text(block(shown.language, shown.word))

    said = subprocess.run(
        [*shown.command, shown.file],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert (said.returncode, said.stderr) == (0, "")
    first, *lines = said.stdout.splitlines()
    assert shown.first(first) == shown.first_is
    assert [json.loads(line)["custom_id"] for line in lines] == ["one", "two"]
    assert sorted(sent.text for sent in provider.requests) == ["Say one", "Say two"]


def test_the_table_of_keys_on_the_page_is_a_file_of_keys(tmp_path: Path) -> None:
    from batchord.gateway.keys import hash_of, load_keys

    (tmp_path / "keys.toml").write_text(
        block("toml", "[keys.research]").replace('"..."', f'"{hash_of("a")}"')
    )
    tenant = load_keys(tmp_path / "keys.toml").tenants["research"]
    assert tenant.model_fields_set == type(tenant).model_fields.keys(), "each line is on the page"


def test_the_table_of_routes_on_the_page_is_a_table_of_routes(tmp_path: Path) -> None:
    from batchord.chains.openai import routes

    (tmp_path / "routes.toml").write_text(block("toml", "[routes."))
    loaded = routes.load(tmp_path / "routes.toml")
    assert loaded is not None
    assert [each.pattern for each in loaded] == ["llama-*"]
