"""Commands that start processes here: `up`, `worker`."""

import logging
import os
import secrets
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import click
from pydantic import SecretStr
from rich.console import Console
from rich.text import Text

from batchord.chains import pricing, registered
from batchord.chains.extras import check_installed
from batchord.chains.openai import routes
from batchord.chains.steps.raw_request import REQUESTS
from batchord.commands.options import (
    chains_option,
    settings_with,
    worker_options,
)
from batchord.ledger.core.private_files import open_private
from batchord.ledger.lifecycle import webhook_policy
from batchord.ledger.settings import Settings, split_names
from batchord.ledger.storage.fleet import lacks
from batchord.local import services
from batchord.local.api_server import ApiServer
from batchord.local.local_model import LocalModel, find_weights
from batchord.local.server import EmbeddedServer
from batchord.local.services import await_workers, has_server
from batchord.output import render
from batchord.worker.execution.serving import check_chains_only
from batchord.worker.supervisor import Supervisor

#: What workers without modules of chains are for.
_NO_CHAINS = (
    "Chains   none registered (--chains, BATCHORD_CHAINS): prompts and requests that are submitted "
    "as data run here"
)


@click.command()
@chains_option
@worker_options
@click.option("--local-model", is_flag=True, help="Use a small language model on this machine.")
@click.option("--flower-port", type=int, default=5555, show_default=True, help="0: no Flower.")
@click.option("--serve", is_flag=True, help="Serve OpenAI's Files and Batch API, too.")
@click.option("--serve-port", type=click.IntRange(0, 65_535), default=8000, show_default=True)
def up(
    chains: str | None,
    processes: int,
    concurrency: int,
    local_model: bool,
    flower_port: int,
    serve: bool,
    serve_port: int,
) -> None:
    """Run Valkey, workers and Flower here until Ctrl-C; the data stay for the next time.

    With --serve, requests of OpenAI's Batch API run on them, as `batchord serve` takes them.
    """
    settings = settings_with(chains)
    if has_server(settings):
        raise click.UsageError(
            "there is a Redis already (BATCHORD_REDIS_URL, or another `batchord up`): "
            "start workers for it with `batchord worker`"
        )
    if flower_port:
        check_installed("flower", "Flower (0 as --flower-port: none)")
    _check(settings)
    if local_model:
        find_weights()
    out = render.console(stderr=True)
    with ExitStack() as stack:
        stopped = stack.enter_context(_until_told())
        server = stack.enter_context(EmbeddedServer(settings.home, announce=True))
        settings = settings.model_copy(update={"redis_url": SecretStr(server.url)})
        environment = {"BATCHORD_REDIS_URL": server.url, "BATCHORD_TASK_EVENTS": "true"}
        if local_model:
            environment |= stack.enter_context(LocalModel()).environment()
        _say_what_is_unset(out, {**os.environ, **environment})
        log = settings.home / "worker.log"
        supervisor = Supervisor(
            processes=processes,
            concurrency=concurrency,
            chains=settings.chains,
            environment=environment,
            log=stack.enter_context(open_private(log)),
        )
        stack.callback(supervisor.stop)
        supervisor.start()
        out.print(f"Valkey   {settings.home} (clients on this machine find it there)")
        await_workers(settings, supervisor, log)
        if not settings.chains:
            out.print(_NO_CHAINS, soft_wrap=True)
        out.print(f"Workers  {processes} x {concurrency}, log in {log}", soft_wrap=True)
        if flower_port:
            password = secrets.token_urlsafe(9)
            address = stack.enter_context(
                services.flower(settings, port=flower_port, password=password)
            )
            out.print(f"Flower   {address} (user batchord, password {password})", soft_wrap=True)
        if serve:
            api = stack.enter_context(ApiServer(settings, port=serve_port))
            out.print(f"Serving  {api.url}", soft_wrap=True)
            if api.key is not None:
                out.print(f"Key      {api.key} (shown this once)", soft_wrap=True)
        out.print("Ctrl-C ends it all; the data stay.")
        stopped.wait()
        out.print("Stopping ...")


@click.command()
@chains_option
@worker_options
@click.option(
    "--chains-only",
    metavar="NAME,...",
    help="Serve only these of the chains: others are left to other workers.",
)
@click.option(
    "--loglevel",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], case_sensitive=False),
    default="INFO",
    show_default=True,
    help="As Celery's.",
)
def worker(
    chains: str | None, processes: int, concurrency: int, chains_only: str | None, loglevel: str
) -> None:
    """Run Celery workers, and start again those whose process exits, until SIGTERM or Ctrl-C."""
    settings = settings_with(chains)
    url = settings.url()  # raises before anything is started
    _check(settings)
    environment = {"BATCHORD_REDIS_URL": url}
    only = split_names(chains_only) or settings.chains_only
    if only:
        check_chains_only(only)
        environment["BATCHORD_CHAINS_ONLY"] = ",".join(only)
    logging.getLogger("batchord.worker").setLevel(loglevel.upper())
    with _until_told() as stopped:
        supervisor = Supervisor(
            processes=processes,
            concurrency=concurrency,
            chains=settings.chains,
            environment=environment,
            log_level=loglevel,
        )
        supervisor.start()
        if not settings.chains:
            render.console(stderr=True).print(_NO_CHAINS, soft_wrap=True)
        try:
            stopped.wait()
        finally:
            supervisor.stop()


def _check(settings: Settings) -> None:
    """Read what workers read as they start: what is wrong is said before anything is started."""
    pricing.load(settings.prices)
    routes.load(settings.routes)
    webhook_policy.check(settings)


def _say_what_is_unset(out: Console, environment: Mapping[str, str]) -> None:
    """Say which chains cannot run, as their model or their key is not set."""
    for name, each in registered().items():
        if name != REQUESTS and (unset := each.chain.unset(environment)):
            cure = lacks(unset, where="and start this again, or add --local-model")
            out.print(Text(f"Chain {name!r} cannot run: {cure}.", style="yellow"), soft_wrap=True)


@contextmanager
def _until_told() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set."""
    event = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: event.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


COMMANDS = (up, worker)
