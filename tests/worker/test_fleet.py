"""Workers that are alive, as producers see them: which has a chain, and what it lacks."""

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from batchord.chains import Chat, Embed, Prompt, Runnable, get_chain, register
from batchord.ledger.errors import BatchPaused, SubmitRefused
from batchord.ledger.needs import FORMATS
from batchord.ledger.storage.fleet import Beat, Fleet, ServedChain
from batchord.ledger.storage.fleet_store import KEPT
from batchord.local.whose_workers import Whose, choose
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.harness import Deployment, wait_until

pytestmark = pytest.mark.timeout(120)


@dataclass(frozen=True)
class Said:
    """An announcement of a worker, this many seconds old."""

    text: str
    seconds_ago: float = 0.0
    worker: str = "far:1"

    def entry(self) -> dict[str, str]:
        """Return it as it stands in Redis."""
        return {self.worker: f"{int(1000 * (time.time() - self.seconds_ago))} {self.text}"}


def serves(**chains: list[str]) -> str:
    """Return the announcement of a worker with these chains, each with what is not set for it."""
    having = {name: {"digest": "d", "unset": unset} for name, unset in chains.items()}
    return json.dumps({"chains": having, "formats": FORMATS})


#: What the workers say, and what keeps a batch of "echo" from running; "" if nothing does.
FLEETS: dict[str, tuple[list[Said], str]] = {
    "none": ([], "no worker is alive: start one with `batchord worker"),
    "silent for too long": ([Said(serves(echo=[]), seconds_ago=KEPT + 2)], "no worker is alive"),
    "alive": ([Said(serves(echo=[]), seconds_ago=KEPT - 10)], ""),
    "without the chain": (
        [Said(serves(triage=[], double=[]))],
        "no live worker has chain 'echo' (they have double, triage)",
    ),
    "one of two has it": (
        [Said(serves(other=[])), Said(serves(echo=[]), worker="far:2")],
        "",
    ),
    "without a model": (
        [Said(serves(echo=["OPENAI_MODEL"]))],
        "chain 'echo' cannot run: no model is named: set OPENAI_MODEL",
    ),
    "without a key": (
        [Said(serves(echo=["OPENAI_API_KEY"]))],
        "there is no API key: set OPENAI_API_KEY",
    ),
    "one of two has the key": (
        [Said(serves(echo=["OPENAI_API_KEY"])), Said(serves(echo=[]), worker="far:2")],
        "",
    ),
    "of another version": ([Said('{"chains": 7}')], "no live worker serves batches of format"),
}


@pytest.mark.parametrize("name", FLEETS)
def test_what_keeps_a_chain_from_running_is_known(
    deployment: Deployment, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    register("echo", str, replace=True)
    entries, trouble = FLEETS[name]
    for entry in entries:
        deployment.redis.hset("batchord:fleet", mapping=entry.entry())
    deployment.redis.expire("batchord:fleet", 60)
    fleet = deployment.client.fleet()
    found = fleet.trouble("echo")
    assert (trouble in found) if trouble else not found
    lacks_it = bool(fleet.workers) and not fleet.serving("echo")
    if lacks_it:
        with pytest.raises(SubmitRefused, match="no live worker.*roll-out"):
            deployment.client.submit("echo", [1])
        assert deployment.client.list() == []
    with caplog.at_level(logging.WARNING):
        batch = deployment.client.submit("echo", [1], allow_unserved=lacks_it)
    assert (trouble in caplog.text) if trouble else not caplog.text
    assert batch.why_waiting() == found
    batch.cancel()
    assert batch.why_waiting() == ""


def test_a_worker_announces_itself_until_it_ends(deploy: Deploy) -> None:
    deployment = deploy(sweep_interval=0.2)
    worker = deployment.start_worker()
    [name] = deployment.client.fleet().workers
    assert name.endswith(f":{worker.pid}")
    assert "double" in deployment.client.fleet().chains()
    deployment.redis.delete("batchord:fleet")  # as a server that went back
    wait_until(lambda: deployment.client.fleet().workers, what="it is announced again")
    assert deployment.redis.ttl("batchord:fleet") <= KEPT
    worker.stop()
    wait_until(lambda: deployment.client.fleet() == Fleet({}), what="it has left")
    assert "double" in deployment.client.chains(), "producers may submit while no worker is up"


WAITS = {
    "wait": lambda batch: batch.wait(20, raise_if_paused=True),
    "results": lambda batch: list(batch.results(raise_if_paused=True)),
    "as_completed": lambda batch: list(batch.as_completed(raise_if_paused=True)),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_for_a_paused_batch_says_why(
    deployment: Deployment, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    register("echo", str, replace=True)
    batch = deployment.client.submit("echo", [1])
    pause(deployment, batch, '{"code": "model_not_found", "message": "no model"}')
    with pytest.raises(BatchPaused, match="model_not_found: no model; mend that"):
        WAITS[name](batch)
    with caplog.at_level(logging.WARNING), pytest.raises(TimeoutError):
        batch.wait(0.3)
    assert caplog.text.count("paused, model_not_found: no model; mend that") == 1


def test_awaiting_says_it_too(deployment: Deployment) -> None:
    register("echo", str, replace=True)
    batch = deployment.client.submit("echo", [1])
    pause(deployment, batch, '{"code": "model_not_found", "message": "no model"}')
    with pytest.raises(BatchPaused):
        asyncio.run(batch.await_(20, raise_if_paused=True))


def pause(deployment: Deployment, batch: Batch, reason: str) -> None:
    """Pause it as a worker does."""
    meta = f"batchord:{{{batch.id}}}:meta"
    deployment.redis.hset(meta, mapping={"status": "paused", "reason": reason})


#: The chains of the workers that are up, each with its version, whether this run has the chain,
#: and whose workers run it.
WHOSE: list[tuple[list[dict[str, str]], bool, Whose]] = [
    ([], True, Whose.OURS_THERE),
    ([], False, Whose.OURS_THERE),
    ([{"mine": "same"}], True, Whose.THEIRS),
    ([{"mine": "same"}, {"mine": "same"}], True, Whose.THEIRS),
    ([{"mine": "older"}], True, Whose.OURS_APART),
    ([{"mine": "same"}, {"mine": "older"}], True, Whose.OURS_APART),
    # A worker that lacks it leaves it to the other.
    ([{"mine": "same"}, {"other": "x"}], True, Whose.THEIRS),
    ([{"other": "x"}], True, Whose.OURS_APART),
    ([{"mine": "older"}], False, Whose.THEIRS),
    ([{"other": "x"}], False, Whose.OURS_THERE),
]


@pytest.mark.parametrize(("workers", "here", "whose"), WHOSE, ids=range(len(WHOSE)))
def test_a_run_uses_workers_only_if_all_have_its_chain_as_it_is_here(
    workers: list[dict[str, str]], here: bool, whose: Whose
) -> None:
    digest = register("mine", str, replace=True).digest() if here else "none"
    announced = {
        str(place): Beat(
            formats=FORMATS,
            chains={
                name: ServedChain(digest=digest if version == "same" else version)
                for name, version in chains.items()
            },
        )
        for place, chains in enumerate(workers)
    }
    found = choose(Fleet(announced), "mine", local_model=False)
    assert found.whose is whose
    assert bool(found.why) is (whose is Whose.OURS_APART)
    if here and workers:
        assert choose(Fleet(announced), "mine", local_model=True).whose is Whose.OURS_APART


def test_another_text_of_its_module_is_another_version_of_a_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(module: str, gives: str) -> str:
        source = (
            f"from batchord import register\nregister('mine', lambda _: {gives!r}, replace=True)"
        )
        (tmp_path / f"{module}.py").write_text(source)
        import_module(module)
        return get_chain("mine").digest()

    monkeypatch.syspath_prepend(tmp_path)
    first = digest("version_1", "x")
    assert digest("version_1_elsewhere", "x") == first
    assert digest("version_2", "y") != first


NOTHING, KEY = {"X": "y"}, {"OPENAI_API_KEY": "k"}
BOTH = {"OPENAI_API_KEY", "OPENAI_MODEL"}
UNSET: list[tuple[Runnable[object, object], dict[str, str], set[str]]] = [
    (Chat(), NOTHING, BOTH),
    (Chat(), KEY, {"OPENAI_MODEL"}),
    (Chat("m"), NOTHING, {"OPENAI_API_KEY"}),
    (Chat("m"), KEY, set()),
    (Embed(), KEY, set()),
    (Prompt("{a}") | Chat(), KEY, {"OPENAI_MODEL"}),
    (Prompt("{a}") | {"x": Chat("m"), "y": Chat()}, NOTHING, BOTH),
    (Chat().with_retry(), KEY, {"OPENAI_MODEL"}),
    (Chat().with_fallbacks([Chat("m")]), KEY, set()),
    (Prompt("{a}") | str, NOTHING, set()),
]


@pytest.mark.parametrize(("chain", "environment", "unset"), UNSET, ids=range(len(UNSET)))
def test_what_a_chain_needs_of_the_environment_is_known(
    chain: Runnable[object, object], environment: dict[str, str], unset: set[str]
) -> None:
    assert set(chain.unset(environment)) == unset
