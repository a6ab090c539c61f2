"""Kill `batchord serve`, workers and Redis during uploads, creates, validations and downloads."""

import json
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import httpx2
import openai

from chaos.ground import Ground, Run
from chaos.providers import wait_for
from tests.support.api_server import CHAT, ApiServer, jsonl, request
from tests.support.crew import Crew
from tests.support.harness import provider_env
from tests.support.judge import Verdict
from tests.support.openai_server import OpenAIServer

#: Requests in all, files, and files at a time.
REQUESTS: Final = 50_000
FILES: Final = 20
AT_ONCE: Final = 4
#: Kills of the server; with each second one a worker is killed, and with each fourth one Redis.
KILLS: Final = 20
WORKER_TOO: Final = 2
REDIS_TOO: Final = 4
#: Calls in flight of each of two workers.
SLOTS: Final = 16
#: Seconds that callers bear a server that does not answer, and that the run may take.
PATIENCE: Final = 300.0
LONGEST: Final = 3600.0

_ENDED: Final = ("completed", "failed", "expired", "cancelled")


@dataclass
class Answers:
    """Findings of one caller: how often each custom_id came, and what is not as it should be."""

    ids: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    #: custom_ids whose answer is another request's.
    mixed_up: list[str] = field(default_factory=list)

    def read(self, line: str) -> None:
        """Take a line of an output or error file."""
        said = json.loads(line)
        name = said["custom_id"]
        self.ids[name] += 1
        if said["response"] is None or said["response"]["status_code"] != 200:
            self.failed += 1
        elif said["response"]["body"]["choices"][0]["message"]["content"] != f"echo: {name}":
            self.mixed_up.append(name)


def kill_gateway(ground: Ground) -> Run:
    """kill -9 of the server, 20 times; of a worker, 10 times; of Redis, 5 times."""
    env = {"BATCHORD_HOME": str(ground.folder / "home")}
    each = max(10, ground.count(REQUESTS) // FILES)
    with OpenAIServer() as provider:
        provider.delay = 0.02
        crew_env = {**provider_env(provider), **env}
        with ground.crew(2, SLOTS, env=crew_env) as crew, ThreadPoolExecutor(AT_ONCE) as threads:
            wait_for(lambda: crew.ready)
            api = ApiServer(ground.deployment, env=env)
            callers = [threads.submit(_call, api, number, each) for number in range(FILES)]
            killed = _strike(ground, crew, api, callers, provider, FILES * each)
            began = time.monotonic()
            found = [caller.result(timeout=LONGEST) for caller in callers]
        verdict = _judge(found, each, provider, killed)
    return Run(
        fault="kill -9 of batchord serve, workers and Redis",
        pool=ground.pool,
        struck=ground.struck,
        verdict=verdict,
        seconds=time.monotonic() - began,
    )


def _strike(
    ground: Ground,
    crew: Crew,
    api: ApiServer,
    callers: list[Future[Answers]],
    provider: OpenAIServer,
    requests: int,
) -> int:
    """Kill as the calls go on, evenly over the run; return how many workers were killed."""
    kills, workers = ground.times(KILLS), 0
    for n in range(kills):
        due = requests * n // (kills + 1)
        wait_for(partial(_is_due, callers, provider, due), LONGEST)
        time.sleep(ground.random.uniform(0.1, 2.0))
        if _over(callers):
            break
        api.process.kill()
        ground.strikes()
        if n % WORKER_TOO == 0:
            crew.kill(workers % 2)
            workers += 1
            ground.strikes()
        if n % REDIS_TOO == 1:
            ground.server.restart(down=1.0)
            ground.strikes()
        api.start()
    return workers


def _is_due(callers: list[Future[Answers]], provider: OpenAIServer, calls: int) -> bool:
    return _over(callers) or len(provider.requests) >= calls


def _over(callers: list[Future[Answers]]) -> bool:
    return all(caller.done() for caller in callers)


def _call(api: ApiServer, number: int, count: int) -> Answers:
    """Do as a patient caller does; return what it was answered."""
    names = [f"{number}-{i}" for i in range(count)]
    lines = jsonl(request(i, name, custom_id=name) for i, name in enumerate(names))
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
            time.sleep(0.5)
            batch = _patiently(lambda: client.batches.retrieve(batch_id))
        answers = Answers()
        for name in filter(None, (batch.output_file_id, batch.error_file_id)):
            for line in _patiently(lambda name=name: client.files.content(name).text).splitlines():
                answers.read(line)
        return answers


def _patiently(ask: Any) -> Any:
    """Ask until the server answers: it is started again a moment later."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with suppress(openai.APIConnectionError, openai.InternalServerError, httpx2.HTTPError):
            return ask()
        threading.Event().wait(0.1)
    raise TimeoutError("the server does not answer")


def _judge(found: list[Answers], each: int, provider: OpenAIServer, killed: int) -> Verdict:
    answered = sum((answers.ids for answers in found), Counter[str]())
    wanted = {f"{number}-{i}" for number in range(len(found)) for i in range(each)}
    calls = Counter(sent.text for sent in provider.requests)
    repeated = sum(calls.values()) - len(calls)
    problems = []
    if lost := wanted - answered.keys():
        problems.append(f"{len(lost)} custom_ids are in no file")
    if more := [name for name, times in answered.items() if times > 1 or name not in wanted]:
        problems.append(f"{len(more)} custom_ids are there more than once, or nobody's")
    if mixed_up := [name for answers in found for name in answers.mixed_up]:
        problems.append(f"{len(mixed_up)} custom_ids have the answer of another")
    if failed := sum(answers.failed for answers in found):
        problems.append(f"{failed} requests failed, at a provider that answers all")
    if unasked := wanted - calls.keys():
        problems.append(f"{len(unasked)} requests never reached the provider")
    if repeated > killed * SLOTS:
        problems.append(f"{repeated} calls were made again, for {killed} kills of {SLOTS} slots")
    return Verdict(len(wanted), len(lost), repeated, max(calls.values(), default=0), problems)
