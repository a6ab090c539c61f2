"""A project with modules of our folders' names runs batches, from a wheel and from a checkout."""

import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Deploy
from tests.support.harness import Deployment, wait_until
from tests.support.wheels import build_wheel, make_environment, site_of

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]

#: The user's modules, all of names that Batchord's folders have, or that seem natural beside it.
PROJECT = {
    "chains/__init__.py": "from batchord import register\nfrom chains.shouting import shout\n\n"
    'register("shout", shout)\n',
    "chains/shouting.py": "import ledger, producer, worker\n\n\n"
    "def shout(text):\n    return text.upper() + worker.MARK + ledger.MARK + producer.MARK\n",
    "worker.py": 'MARK = "!"\n',
    "ledger.py": 'MARK = "?"\n',
    "producer/__init__.py": 'MARK = "."\n',
    "batch.py": "INPUTS = ['a', 'b']\n",
    "app.py": "import batch\nimport chains\nfrom batchord import Client\n"
    "print(Client().submit('shout', batch.INPUTS).outputs(), chains.shout('c'))\n",
}
ANSWERS = ["A!?.", "B!?."]

#: What a command says once its workers take messages.
READY = (" ready.", "Ctrl-C ends it all")

Run = Callable[[Path, Deployment], None]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel, and no path to this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    python = make_environment(folder / "venv", build_wheel(folder))
    # Our dependencies, but not the checkout: .pth files of a folder that a .pth names do not count.
    site = site_of(folder / "venv")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture(params=["wheel", "checkout"])
def python(request: pytest.FixtureRequest) -> Path:
    """The interpreter that runs the project."""
    if request.param == "checkout":
        return Path(sys.executable)
    found: Path = request.getfixturevalue("wheel")
    return found


@pytest.fixture
def project(deploy: Deploy) -> Deployment:
    """A deployment in whose folder the project lies."""
    deployment = deploy()
    for name, text in PROJECT.items():
        (deployment.folder / name).parent.mkdir(exist_ok=True)
        (deployment.folder / name).write_text(text)
    return deployment


def _environment(project: Deployment, *, server: bool) -> dict[str, str]:
    """The environment of a program in the project; without `server`, one that starts its own."""
    env = project.env({"BATCHORD_CHAINS": "chains", "BATCHORD_HOME": str(project.folder / "home")})
    if not server:
        del env["BATCHORD_REDIS_URL"]
    return env


def _run(argv: list[str], project: Deployment, *, server: bool = True) -> str:
    env = _environment(project, server=server)
    done = subprocess.run(
        argv, cwd=project.folder, env=env, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _console_script(python: Path, project: Deployment) -> None:
    (project.folder / "in.jsonl").write_text('"a"\n"b"\n')
    script = str(python.parent / "batchord")
    _run([script, "run", "shout", "--processes", "1", "-i", "in.jsonl", "-o", "out"], project)
    text = (project.folder / "out").read_text()
    assert all(answer in text for answer in ANSWERS)


def _beside(*argv: str, server: bool = True) -> Run:
    """Have the project's app submit a batch while this command runs; `{bin}` is its folder."""

    def run(python: Path, project: Deployment) -> None:
        log = project.folder / "worker.log"
        with (
            log.open("wb") as output,
            subprocess.Popen(
                [argument.format(bin=python.parent) for argument in argv],
                cwd=project.folder,
                env=_environment(project, server=server),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            ) as command,
        ):
            try:
                wait_until(
                    lambda: (
                        any(word in log.read_text() for word in READY) or command.poll() is not None
                    ),
                    what="the workers are ready",
                    timeout=60,
                )
                assert command.poll() is None, log.read_text()
                answer = _run([str(python), "app.py"], project, server=server)
                assert answer.strip() == f"{ANSWERS} C!?."
            finally:
                command.terminate()

    return run


#: By how the project runs its batches: from an interpreter and a project to the right answers.
WAYS: dict[str, Run] = {
    "batchord run": _console_script,
    "batchord worker": _beside("{bin}/batchord", "worker", "--processes", "1"),
    "batchord up": _beside(
        "{bin}/batchord", "up", "--processes", "1", "--flower-port", "0", server=False
    ),
    "python -m": _beside("{bin}/python", "-P", "-m", "batchord.worker", "-c", "2", "-l", "INFO"),
    "celery -A": _beside(
        *("{bin}/python", "-m", "celery", "-A", "batchord.worker.app"),
        *("worker", "-P", "threads", "-c", "2", "-l", "INFO"),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_project_with_modules_of_our_names_runs_batches(
    python: Path, project: Deployment, way: str
) -> None:
    WAYS[way](python, project)
