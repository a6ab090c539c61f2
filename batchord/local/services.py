"""One-machine mode: starts the missing services of a batch, and stops them at its end."""

import importlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from pydantic import SecretStr

from batchord.chains import get_chain
from batchord.chains.errors import BatchordError
from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.core.chain_modules import NoChainModule, module_name
from batchord.ledger.core.private_files import open_private
from batchord.ledger.core.working_directory import add_working_directory
from batchord.ledger.errors import LedgerUnavailable
from batchord.ledger.lifecycle.takeover import take_over
from batchord.ledger.settings import NoServer, Settings
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.fleet import Fleet, lacks
from batchord.ledger.storage.fleet_store import FleetStore, process_name
from batchord.local.local_model import LocalModel
from batchord.local.server import EmbeddedServer
from batchord.local.whose_workers import Whose, choose
from batchord.worker.supervisor import GRACE, Supervisor

#: Seconds that started workers may take until they announce their chains.
_START_TIMEOUT = 60.0
#: Seconds that items may still run when a server of our own is about to end.
_OWN_GRACE = 1.0

_LOCAL_MODEL = "; or use a small model on this machine: --local-model"


class LocalError(BatchordError):
    """Something that one-machine mode starts did not come up."""


def import_chains(modules: tuple[str, ...]) -> None:
    """Import the modules that register chains, by name or path; the working directory is last.

    Raises:
        LocalError, NoChainModule: one cannot be imported; the message says why.
    """
    add_working_directory()
    for module in modules:
        try:
            importlib.import_module(module_name(module))
        except NoChainModule:
            raise
        except Exception as error:
            raise LocalError(
                f"cannot import the chains module {module!r}: {type(error).__name__}: {error}"
            ) from error


def has_server(settings: Settings) -> bool:
    """Whether a Redis is configured, or `batchord up` runs one here."""
    if settings.redis_url is not None:
        return True
    try:
        BatchStore(settings).ping()
    except (NoServer, LedgerUnavailable):
        # An `up` that was killed could not take its announcement back.
        return False
    return True


@contextmanager
def machine(
    settings: Settings,
    chain: str,
    *,
    processes: int,
    concurrency: int,
    local_model: bool,
    data: Path | None,
) -> Iterator[Settings]:
    """Run what is not there for the time of the block; leave nothing running.

    Yields the settings to submit with. `data`: the folder of a server of our own, which goes on
    with what is in it (`needs_own_server`). None: the Redis that is there is used, and so are its
    workers if there are any with the chain.

    Raises:
        ChainNotFound: neither they nor we have it.
        LocalError: our workers would lack a model or a key, or do not come up.
    """
    with ExitStack() as stack:
        scratch = Path(tempfile.mkdtemp(prefix="batchord-"))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        if data is None and _served(settings, chain, local_model=local_model):
            yield settings
            return
        here = get_chain(chain)  # our workers import what we have imported
        unset = [] if local_model or settings.routes else here.chain.unset(os.environ)
        if unset:
            raise LocalError(f"chain {chain!r} cannot run: {lacks(unset, where='')}{_LOCAL_MODEL}")
        environment = {}
        if data is not None:
            server = stack.enter_context(EmbeddedServer(data))
            settings = settings.model_copy(update={"redis_url": SecretStr(server.url)})
            _take_over(settings)
            # What still runs at the end has nowhere to go: it is handed back, and not waited for.
            environment["BATCHORD_SHUTDOWN_GRACE"] = str(_OWN_GRACE)
        environment["BATCHORD_REDIS_URL"] = settings.url()
        if local_model:
            environment |= stack.enter_context(LocalModel()).environment()
        log = stack.enter_context(open_private(scratch / "worker.log"))
        supervisor = Supervisor(
            processes=processes,
            concurrency=concurrency,
            chains=settings.chains,
            environment=environment,
            log_level="WARNING",
            log=log,
            grace=GRACE if data is None else _OWN_GRACE + 4.0,
        )
        stack.callback(supervisor.stop)
        supervisor.start()
        await_workers(settings, supervisor, scratch / "worker.log")
        yield settings


def needs_own_server(
    settings: Settings, chain: str, *, local_model: bool, say: Callable[[str], object]
) -> bool:
    """Return whether a run needs a server of its own; `say` is told why, if there is one."""
    if not has_server(settings):
        return True
    whose, why = choose(fleet_of(settings), chain, local_model=local_model)
    if why:
        say(why)
    return whose is Whose.OURS_APART


def _served(settings: Settings, chain: str, *, local_model: bool) -> bool:
    """Whether the workers that are up run the chain, as they do what was submitted there before."""
    whose = choose(fleet_of(settings), chain, local_model=local_model).whose
    return whose is not Whose.OURS_THERE


def fleet_of(settings: Settings) -> Fleet:
    """Return the workers that are alive on this Redis."""
    with closing(BatchStore(settings)) as store:
        return FleetStore(store).read()


def _take_over(settings: Settings) -> None:
    with closing(BatchStore(settings)) as store, closing(create_app(settings)) as app:
        take_over(app, store)


def await_workers(settings: Settings, supervisor: Supervisor, log: Path) -> None:
    """Return when one of the supervisor's workers has announced itself.

    Raises:
        LocalError: all have exited, or it took too long; with the end of their log.
    """
    with closing(BatchStore(settings)) as store:
        fleet = FleetStore(store)
        for _ in supervisor.ticks(_START_TIMEOUT):
            if {process_name(pid) for pid in supervisor.pids} & fleet.read().workers.keys():
                return
            if not supervisor.pids:
                break
    tail = log.read_text(errors="replace").strip().splitlines()[-5:]
    raise LocalError("the workers did not start: " + " | ".join(tail))


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def flower(settings: Settings, *, port: int, password: str) -> Iterator[str]:
    """Run Flower on loopback for the time of the block; yields its address once it answers.

    Raises:
        LocalError: it does not come up, as when something else listens on the port.
    """
    environment = {
        **os.environ,
        "BATCHORD_REDIS_URL": settings.url(),
        # Not on the command line, where every user of the machine could read it.
        "FLOWER_BASIC_AUTH": f"batchord:{password}",
    }
    if _listens(port):
        raise LocalError(f"something listens on port {port} already: try another --flower-port")
    command = [sys.executable, "-P", "-m", "batchord.worker", "flower"]
    process = subprocess.Popen(
        [*command, "--address=127.0.0.1", f"--port={port}", "--logging=warning"],
        env={**environment, "BATCHORD_SUPERVISED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + _START_TIMEOUT
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise LocalError(f"Flower did not start on port {port}: try another --flower-port")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
