"""Providers that are down, or bear little: a batch, and LangChain's `batch` with its retries."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from batchord.chains import register
from chaos.ground import Ground, Run
from tests.chains_for_tests.journal import asked
from tests.providers.scarce import Scarce, in_flight
from tests.support.harness import provider_env
from tests.support.judge import judge_results
from tests.support.valkey import free_port

#: Seconds of an outage, and of the shortest one. For the first half connections are refused, for
#: the second half each call is answered with 503.
OUTAGE: Final = 60.0
SHORTEST: Final = 40.0
#: Calls that may be made meanwhile.
MOST_CALLS: Final = 60
#: Calls in flight that a provider bears, and the share of refused ones that it may have to answer.
BEARS: Final = 4
MOST_REFUSED: Final = 0.1
#: Calls in flight at once; seconds that each takes.
SLOTS: Final = 16
SECONDS: Final = 0.3


def outage(ground: Ground) -> Run:
    """A provider that is down for a minute."""
    with _provider() as provider, _crew(ground, provider) as crew:
        wait_for(lambda: crew.ready)
        batch = ground.deployment.client.submit("asked", _inputs(ground))
        wait_for(lambda: batch.record().request_counts.done > 20)
        calls = _down(ground, provider)
        run = replace(ground.end("provider down for a minute", batch), struck=calls)
    few = calls < MOST_CALLS
    return run if few else _with(run, f"{calls} calls were made while it was down")


def bears_few(ground: Ground) -> Run:
    """A provider that bears four calls in flight, and does not say so."""
    with _provider() as provider, _crew(ground, provider) as crew:
        wait_for(lambda: crew.ready)
        provider.bears = in_flight(BEARS)
        inputs = _inputs(ground)
        batch = ground.deployment.client.submit("asked", inputs)
        run = ground.end("provider bears 4 in flight", batch)
        refused = sum(request.status == 429 for request in provider.requests)
    few = refused < MOST_REFUSED * len(inputs)
    run = replace(run, struck=refused)
    return run if few else _with(run, f"{refused} of {len(inputs)} calls were refused")


def langchain_outage(ground: Ground) -> Run:
    """LangChain's `batch` of a model with retries, while its provider is down for a minute.

    It runs what has failed again once all else has ended, so it may lose nothing: it is its calls
    that show that it does not wait.
    """
    calls: list[int] = []
    with _provider() as provider:
        run = _langchain(ground, provider, lambda: calls.append(_down(ground, provider)))
        fault = "LangChain's batch: provider down for a minute"
        return replace(run, fault=fault, struck=sum(calls), meant_to_fail=False)


def langchain_bears_few(ground: Ground) -> Run:
    """LangChain's `batch` of a model with retries, at a provider that bears four in flight."""
    with _provider() as provider:
        provider.bears = in_flight(BEARS)
        run = _langchain(ground, provider, lambda: None)
        refused = sum(request.status == 429 for request in provider.requests)
        return replace(run, fault="LangChain's batch: provider bears 4 in flight", struck=refused)


def wait_for(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    """Return once the condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {seconds:g} s")
        time.sleep(0.05)


@contextmanager
def _provider() -> Iterator[Scarce]:
    register("asked", lambda value: value, replace=True)
    with Scarce(port=free_port()) as provider:
        provider.delay = SECONDS
        yield provider


def _crew(ground: Ground, provider: Scarce) -> Any:
    return ground.crew(2, SLOTS // 2, env=provider_env(provider))


def _inputs(ground: Ground) -> list[str]:
    """The index and the journal as text, so that the model's answer has them."""
    journal = str(ground.journal)
    return [json.dumps({"index": i, "journal": journal}) for i in range(ground.count(1000))]


def _down(ground: Ground, provider: Scarce) -> int:
    """Let it be down for a while; return the calls that it was asked for meanwhile."""
    half = max(SHORTEST, OUTAGE * ground.scale) / 2
    before = len(provider.requests)
    provider.refuse_connections(half)
    provider.fail_when(None, status=503)
    time.sleep(half)
    calls = len(provider.requests) - before
    provider.forget_rules()
    ground.strikes()
    return calls


def _with(run: Run, problem: str) -> Run:
    verdict = replace(run.verdict, problems=[*run.verdict.problems, problem])
    return replace(run, verdict=verdict)


def _langchain(ground: Ground, provider: Scarce, strike: Callable[[], Any]) -> Run:
    from concurrent.futures import ThreadPoolExecutor

    from langchain_core.runnables import RunnableLambda
    from langchain_openai import ChatOpenAI

    options: dict[str, Any] = {"base_url": provider.base_url, "api_key": "sk-test"}
    options["model"] = "test-model"
    model: Any = ChatOpenAI(**options, max_retries=2).with_retry(stop_after_attempt=3)
    chain = model | RunnableLambda(lambda message: asked(message.content))
    inputs = _inputs(ground)
    with ThreadPoolExecutor(1) as pool:
        outputs = pool.submit(
            chain.batch, inputs, {"max_concurrency": SLOTS}, return_exceptions=True
        )
        wait_for(lambda: len(provider.requests) > 20)
        strike()
        began = time.monotonic()
        results = [None if isinstance(one, Exception) else one for one in outputs.result()]
    return Run(
        fault="",
        pool=ground.pool,
        struck=ground.struck,
        verdict=judge_results(results, len(inputs), ground.journal),
        seconds=time.monotonic() - began,
        meant_to_fail=True,
    )
