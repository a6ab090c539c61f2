"""A client is a guest of its application: it changes nothing of the process that it runs in."""

import ast
import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import batchord
from tests.conftest import Deploy
from tests.support.harness import Deployment
from tests.support.valkey import Server

pytestmark = pytest.mark.timeout(120)

#: What a process has one of, as an expression: the next member is a line.
GLOBAL_STATE = {
    "Celery's current app": "getattr(state._tls, 'current_app', None)",
    "Celery's default app": "state.default_app",
    "signal handlers": "[signal.getsignal(each) for each in signal.Signals if each not in (9, 19)]",
    "root logger": "(logging.root.level, logging.root.handlers[:], logging.root.manager.disable)",
    "logger class": "(logging.getLoggerClass(), logging.getLogRecordFactory())",
    "levels of loggers": "{name: one.level for name, one in loggers() if one.level}",
    "handlers of loggers": "{name: handlers(one) for name, one in loggers() if handlers(one)}",
    "warnings": "(warnings.filters[:], warnings.showwarning)",
    "switch interval": "sys.getswitchinterval()",
    "garbage collector": "(gc.isenabled(), gc.get_threshold(), gc.get_freeze_count())",
    "recursion limit": "sys.getrecursionlimit()",
    "environment": "dict(os.environ)",
    "import path": "sys.path[:]",
    "working directory": "(os.getcwd(), os.umask(0o22))",
    "event loop policy": "type(asyncio.get_event_loop_policy())",
    "hooks": "(sys.excepthook, threading.excepthook, sys.unraisablehook, sys.gettrace())",
    "decimal context": "repr(decimal.getcontext())",
    "locale": "locale.setlocale(locale.LC_ALL)",
    "socket timeout": "socket.getdefaulttimeout()",
    "threads": "sorted(each.name for each in threading.enumerate())",
}

LOOK = """
import asyncio, decimal, gc, json, locale, logging, os, signal, socket
import sys, threading, time, warnings
import celery
from celery import _state as state
# LangChain's own imports add filters for its warnings; a RemoteRunnable imports it where it is
# installed, and here it is there before.
import langchain_core.runnables, langsmith.client, langsmith.run_helpers

def loggers():
    known = logging.root.manager.loggerDict.items()
    return [(name, one) for name, one in known if isinstance(one, logging.Logger)]

def handlers(logger):
    return [one for one in logger.handlers if not isinstance(one, logging.NullHandler)]

STATE = json.loads(sys.argv[2])

def look():
    return {name: eval(expression) for name, expression in STATE.items()}

def changed(before):
    after = look()
    both = {name: [before[name], after[name]] for name in STATE}
    return {name: [repr(a), repr(b)] for name, (a, b) in both.items() if a != b}

before = look()
found = {}
import batchord
from batchord import *
found["import"] = changed(before)
client = batchord.Client(sys.argv[1])
found["client"] = changed(before)
assert client.submit("double", [1, 2]).outputs() == [2, 4]

async def use():
    batch = await client.asubmit("double", [3])
    await batch.await_()
    return await batch.aoutputs()

assert asyncio.run(use()) == [6]
assert batchord.RemoteRunnable("double", client=client).batch([4]) == [8]
client.close()
from batchord.chains.runtime.loop_thread import default_loop
default_loop().stop()
for _ in range(100):
    if threading.active_count() == 1:
        break
    time.sleep(0.1)
found["use"] = changed(before)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def working(deploy_for_module: Deploy) -> Deployment:
    """A deployment with one worker."""
    deployment = deploy_for_module()
    deployment.start_worker()
    return deployment


def run(script: str, *arguments: str, **env: str) -> Any:
    """Run a script in a process of its own; return what its last line says, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("env", [{}, {"DJANGO_SETTINGS_MODULE": "no.such.settings"}])
def test_a_client_changes_no_global_state(working: Deployment, env: dict[str, str]) -> None:
    found = run(LOOK, working.url, json.dumps(GLOBAL_STATE), **env)
    assert found == {"import": {}, "client": {}, "use": {}}


IMPORT = """
import json, sys
asked = []
sys.addaudithook(lambda event, args: asked.append(event) if event.startswith("socket.") else None)
import batchord
print(json.dumps([sorted(sys.modules), asked]))
"""


def test_import_batchord_imports_no_library_and_asks_no_network() -> None:
    modules, asked = run(IMPORT)
    heavy = {
        "aiohttp",
        "celery",
        "flower",
        "langchain_core",
        "numpy",
        "openai",
        "pydantic",
        "redis",
    }
    assert heavy.isdisjoint(modules)
    assert asked == []


def test_type_checkers_and_python_see_the_same_public_names() -> None:
    tree = ast.parse(Path(str(batchord.__file__)).read_text())
    [guarded] = [each for each in tree.body if isinstance(each, ast.If)]
    typed = {name.name for each in guarded.body for name in each.names}  # type: ignore[attr-defined]
    assert typed == set(batchord.__all__) == {n for n in batchord.__all__ if getattr(batchord, n)}
    assert set(batchord.__all__) <= set(dir(batchord))
    with pytest.raises(AttributeError, match="no_such_name"):
        batchord.no_such_name  # noqa: B018


#: How an application calls its own tasks; each gives the id of a message.
CALLS = {
    "shared task": "shared.delay().id",
    "app task": "own.delay().id",
    "signature by name": "signature('host.own').apply_async().id",
    "signature": "shared.s().apply_async().id",
    "group": "group(shared.s(), own.s()).apply_async().children[0].id",
    "chain": "chain(shared.si(), own.si()).apply_async().parent.id",
    "send_task": "current_app.send_task('host.own').id",
}

HOST = """
import json, sys, threading
from celery import Celery, chain, current_app, group, shared_task, signature
import redis

host, ours = sys.argv[1:3]

@shared_task(name="host.shared")
def shared(): pass

app = Celery("host", broker=host, backend=host, task_default_queue="hosts-own")

@app.task(name="host.own")
def own(): pass

app.set_default()
CALLS = json.loads(sys.argv[3])

def lengths():
    with redis.Redis.from_url(host) as r:
        return r.llen("hosts-own")

def call():
    found = {}
    for name, expression in CALLS.items():
        before = lengths()
        eval(expression)
        found[name] = [lengths() - before, current_app.main]
    return found

def in_thread(found):
    found.update(call())

def everywhere():
    other = {}
    thread = threading.Thread(target=in_thread, args=(other,))
    thread.start(); thread.join()
    return [call(), other]

before = everywhere()
from batchord import Client
with Client(ours) as client:
    client.submit("double", [1]).wait()
    during = everywhere()
after = everywhere()
print(json.dumps([before, during, after]))
"""


def test_the_tasks_of_an_application_go_where_they_went(
    working: Deployment, deploy: Deploy
) -> None:
    host = deploy()
    before, during, after = run(HOST, host.url, working.url, json.dumps(CALLS))
    assert during == before
    assert after == before
    for place in before:
        assert {name: app for name, (_, app) in place.items()} == dict.fromkeys(CALLS, "host")
        assert all(messages > 0 for messages, _ in place.values()), place
    host.redis.flushdb()


FORK = """
import asyncio, json, os, sys
from batchord import Client

client = Client(sys.argv[1])

async def use(number):
    batch = await client.asubmit("double", [number])
    await batch.await_()
    return await batch.aoutputs()

def used(number):
    return client.submit("double", [number]).outputs() + asyncio.run(use(number + 1))

assert used(1) == [2, 4]
pid = os.fork()
if pid == 0:
    os._exit(0 if used(10) == [20, 22] else 1)
for number in range(20, 30, 2):  # at the same time as the child
    assert used(number) == [2 * number, 2 * number + 2]
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_process_may_fork_after_it_used_a_client(working: Deployment) -> None:
    assert run(FORK, working.url) == 0


def test_a_thousand_waits_share_one_thread_and_one_connection(working: Deployment) -> None:
    client = batchord.Client(settings=working.settings)  # no other test has waited through it
    batches = [client.submit("nap", [{"seconds": 3.0, "value": 1}]) for _ in range(40)]

    before = set(threading.enumerate())  # clients of other tests have theirs

    async def wait_for_all() -> tuple[list[str], int, Any]:
        waits = [asyncio.create_task(batch.await_()) for batch in batches for _ in range(25)]
        ours, threads = ("batchord-client", "batchord-events"), list[str]()
        while "batchord-events" not in threads and not all(each.done() for each in waits):
            await asyncio.sleep(0.2)
            new = [each for each in threading.enumerate() if each not in before]
            threads = [each.name for each in new if each.name.startswith(ours)]
        number = working.url.rsplit("/", 1)[1]
        waiting = [
            each
            for each in working.redis.client_list()
            # Blocked now: a connection of another test's client may have read before.
            if each["db"] == number and each["cmd"] == "xread" and "b" in each["flags"]
        ]
        records = await asyncio.gather(*waits)
        assert {record.status for record in records} == {"completed"}
        executor = asyncio.get_running_loop()._default_executor  # type: ignore[attr-defined]
        return threads, len(waiting), executor

    threads, connections, executor = asyncio.run(wait_for_all())
    assert len([name for name in threads if name == "batchord-events"]) == 1
    client.close()
    assert len(threads) <= 6
    assert connections <= 1
    assert executor is None


CANCEL = """
import asyncio, json, sys
from batchord import Client

client = Client(sys.argv[1])
batch = client.retrieve(sys.argv[2])

async def consume(stream):
    async for _ in stream:
        pass

WAYS = {
    "await_": lambda: batch.await_(),
    "aoutputs": lambda: batch.aoutputs(),
    "results": lambda: consume(batch.results()),
    "as_completed": lambda: consume(batch.as_completed()),
    "events": lambda: consume(batch.events()),
    "aexport": lambda: batch.aexport(sys.argv[3]),
}

async def cancelled(way):
    task = asyncio.create_task(WAYS[way]())
    await asyncio.sleep(0.3)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return "cancelled"
    return "went on"

print(json.dumps({way: asyncio.run(cancelled(way)) for way in WAYS}))
"""


def test_a_cancelled_wait_ends_and_lets_its_process_end(
    working: Deployment, tmp_path: Path
) -> None:
    batch = working.client.submit("nap", [{"seconds": 100.0, "value": 1}])
    found = run(CANCEL, working.url, batch.id, str(tmp_path / "out.jsonl"))
    assert set(found.values()) == {"cancelled"}
    batch.cancel()


def test_waits_survive_a_restart_of_redis(server: Server, deploy: Deploy) -> None:
    deployment = deploy(url=server.url)
    deployment.start_worker()
    batch = deployment.client.submit("nap", [{"seconds": 4.0, "value": 2}])

    async def wait() -> list[Any]:
        waits = [asyncio.create_task(batch.await_()), asyncio.create_task(batch.aoutputs())]
        await asyncio.sleep(0.3)
        await asyncio.to_thread(server.restart, down=1.0)
        return await asyncio.gather(*waits)

    record, outputs = asyncio.run(wait())
    assert record.status == "completed"
    assert outputs == [2]
