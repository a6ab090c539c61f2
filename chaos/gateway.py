"""Kill `batchord serve` during uploads, creates, validations and downloads, and a worker too."""

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

import httpx2
import openai

from chaos.ground import Ground, Run
from chaos.providers import wait_for
from tests.support.api_server import CHAT, ApiServer, jsonl, request
from tests.support.harness import provider_env
from tests.support.judge import Verdict
from tests.support.openai_server import OpenAIServer

#: Requests in all, files, and files at a time.
REQUESTS: Final = 10_000
FILES: Final = 20
AT_ONCE: Final = 4
#: Calls in flight of each of two workers.
SLOTS: Final = 16
#: Each fourth kill of the server is one of a worker, too.
WORKER_TOO: Final = 4
_ENDED: Final = ("completed", "failed", "expired", "cancelled")


def kill_gateway(ground: Ground) -> Run:
    """kill -9 of the server, 20 times, and of a worker each fourth time."""
    env = {"BATCHORD_HOME": str(ground.folder / "home")}
    each = max(10, ground.count(REQUESTS) // FILES)
    with OpenAIServer() as provider:
        provider.delay = 0.02
        crew_env = {**provider_env(provider), **env}
        with ground.crew(2, SLOTS, env=crew_env) as crew, ThreadPoolExecutor(AT_ONCE) as threads:
            wait_for(lambda: crew.ready)
            api = ApiServer(ground.deployment, env=env)
            callers = [threads.submit(_call, api, number, each) for number in range(FILES)]
            killed = 0
            for n in range(ground.times(20)):
                time.sleep(ground.random.uniform(0.1, 2.0))
                if all(caller.done() for caller in callers):
                    break
                api.process.kill()
                if n % WORKER_TOO == 0:
                    crew.kill(n % 2)
                    killed += 1
                ground.strikes()
                api.start()
            began = time.monotonic()
            found = [caller.result(timeout=900) for caller in callers]
        verdict = _judge(found, each, provider, killed)
    return Run(
        fault="kill -9 of batchord serve",
        pool=ground.pool,
        struck=ground.struck,
        verdict=verdict,
        seconds=time.monotonic() - began,
    )


def _call(api: ApiServer, number: int, count: int) -> Counter[str]:
    """Do as a patient caller does; return how often each custom_id was answered."""
    lines = jsonl(
        request(i, f"file {number} line {i}", custom_id=f"{number}-{i}") for i in range(count)
    )
    with api.client(max_retries=0, timeout=60) as client:
        file = _patiently(lambda: client.files.create(file=("a.jsonl", lines), purpose="batch"))
        batch = _patiently(
            lambda: client.batches.create(
                input_file_id=file.id,
                endpoint=CHAT,
                completion_window="24h",
                extra_headers={"Idempotency-Key": f"file-{number}"},
            )
        )
        batch_id = batch.id
        while batch.status not in _ENDED:
            time.sleep(0.2)
            batch = _patiently(lambda: client.batches.retrieve(batch_id))
        answered: Counter[str] = Counter()
        for name in filter(None, (batch.output_file_id, batch.error_file_id)):
            text = _patiently(lambda name=name: client.files.content(name).text)
            answered.update(json.loads(line)["custom_id"] for line in text.splitlines())
        return answered


def _patiently(ask: Any) -> Any:
    """Ask until the server answers: it is started again a moment later."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        with suppress(openai.APIConnectionError, openai.InternalServerError, httpx2.HTTPError):
            return ask()
        threading.Event().wait(0.1)
    raise TimeoutError("the server does not answer")


def _judge(found: list[Counter[str]], each: int, provider: OpenAIServer, killed: int) -> Verdict:
    answered = sum(found, Counter())
    wanted = {f"{number}-{i}" for number in range(len(found)) for i in range(each)}
    calls = Counter(sent.text for sent in provider.requests)
    repeated = sum(calls.values()) - len(calls)
    problems = []
    if lost := wanted - answered.keys():
        problems.append(f"{len(lost)} custom_ids are in no file")
    if more := [name for name, times in answered.items() if times > 1 or name not in wanted]:
        problems.append(f"{len(more)} custom_ids are there more than once, or nobody's")
    if repeated > killed * SLOTS:
        problems.append(f"{repeated} calls were made again, for {killed} kills of {SLOTS} slots")
    return Verdict(len(wanted), len(lost), repeated, max(calls.values(), default=0), problems)
