"""The Celery app of workers and Flower: `celery -A batchord.worker.app worker` or `flower`."""

import gc
import logging
import sys
import time
from functools import partial
from typing import Any

import click
from celery import Celery, bootsteps
from celery.apps.worker import Worker as CeleryWorker
from celery.concurrency.thread import TaskPool
from celery.signals import worker_process_init, worker_process_shutdown
from celery.worker import state
from celery.worker.consumer.control import Control
from celery.worker.control import Panel

from batchord.chains import ChainNotFound, pricing
from batchord.chains.errors import BatchordError
from batchord.chains.openai import routes
from batchord.chains.runtime import stored_payloads
from batchord.chains.runtime.loop_thread import LoopDied, configure, default_loop
from batchord.chains.steps.raw_request import register_requests
from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.broker.celery_rules import RULES, broken
from batchord.ledger.core.chain_modules import module_name
from batchord.ledger.lifecycle import webhook_policy
from batchord.ledger.settings import Settings
from batchord.ledger.storage.file_store import file_store, read_part
from batchord.worker import logs
from batchord.worker.control import answer_pings, with_answers
from batchord.worker.execution.asyncio_pool import TaskPool as AsyncioPool
from batchord.worker.execution.serving import check_chains_only
from batchord.worker.execution.worker_context import HAND_BACK, WorkerContext
from batchord.worker.maintenance.announcer import Announcer
from batchord.worker.maintenance.sweep import Sweep
from batchord.worker.notifications.dispatcher import Dispatcher
from batchord.worker.tasks import register_tasks
from batchord.worker.trace_export import SERVICE, flush, start_export

logger = logging.getLogger(__name__)

#: Pools of a fixed size.
NOT_SCALED = ("asyncio", "threads")

#: Seconds after which a thread that computes lets another one in. An item passes through four
#: threads; at Python's 5 ms they wait for each other longer than they work.
SWITCH_INTERVAL = 0.001

#: Objects that are made until the youngest are looked through. At Python's 700, a tenth of a call's
#: time goes into looking through the calls in flight, which are all alive.
COLLECTED_AFTER = 10_000


def create_worker_app(settings: Settings) -> Celery:
    """Return an app with the tasks; a worker on it also announces its chains and sweeps."""
    logs.set_up(settings)
    modules = tuple(map(module_name, settings.chains))
    app = create_app(settings, include=modules, set_as_current=True)
    register_requests()
    # Here, so that a pool's children have them too.
    pricing.use(pricing.load(settings.prices))
    routes.use(routes.load(settings.routes))
    stored_payloads.install(partial(read_part, file_store(settings)))
    webhook_policy.check(settings)
    runtime = WorkerContext(settings, app=app)
    register_tasks(app, runtime)
    app.steps["consumer"].add(_limit(runtime))
    app.steps["consumer"].add(Answers)
    app.steps["worker"].add(_service(runtime))
    app.Worker = app.subclass_with_self(Worker, runtime=runtime)
    _begin_children(runtime)
    answer_pings(runtime)
    return app


class Worker(CeleryWorker):
    """A Celery worker whose soft shutdown ends with the last running item, or hands it back."""

    #: Set by `create_worker_app`.
    runtime: WorkerContext

    def on_before_init(self, quiet: bool = False, **options: Any) -> None:
        """End the program if a setting or an option would break batches.

        The modules of chains have been imported, and nothing was connected to.
        """
        settings = self.runtime.settings
        usual = create_app(settings)
        if lines := broken(self._found(options), usual.conf, settings):
            sys.exit("\n".join(f"Celery's {line}" for line in lines))
        usual.close()
        try:
            check_chains_only(settings.chains_only)
        except ChainNotFound as error:
            sys.exit(str(error))
        super().on_before_init(quiet=quiet, **options)

    def _found(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the settings that have a rule, as the options of the command line leave them."""
        either = self.app.either
        pool = _pool_name(either("worker_pool", options.get("pool"), options.get("pool_cls")))
        served = {*(options.get("queues") or self.runtime.settings.queues)}
        return {
            **{name: self.app.conf.get(name) for name in RULES},
            "task_time_limit": either("task_time_limit", options.get("time_limit")),
            "task_soft_time_limit": either("task_soft_time_limit", options.get("soft_time_limit")),
            "worker_pool": pool,
            "worker_queues": served - {*(options.get("exclude_queues") or ())},
            "worker_autoscale": options.get("autoscale") if pool in NOT_SCALED else None,
        }

    def emit_banner(self) -> None:
        """Print Celery's banner, unless the log is to be JSON."""
        if self.runtime.settings.log_format == "text":
            super().emit_banner()

    def wait_for_soft_shutdown(self) -> None:
        """Return when no item runs any more, or after the grace; Celery always sleeps all of it."""
        grace = self.app.conf.worker_soft_shutdown_timeout
        logger.warning("soft shutdown: what runs may end within %g s", grace)
        deadline = time.monotonic() + grace
        while state.active_requests and time.monotonic() < deadline:
            time.sleep(0.1)
        if state.active_requests and self.runtime.in_process:
            logger.warning("handing back what still runs")
            try:
                self.runtime.hand_back()
            except TimeoutError:
                watchdog = self.runtime.watchdog
                if not default_loop().turns(HAND_BACK):
                    # Celery would wait for its threads, and they for the loop, for ever.
                    self.runtime.give_up(None if watchdog is None else watchdog.blocked)
                logger.warning("not handed back in time, left to the sweep")
            except (BatchordError, LoopDied) as error:
                logger.warning("not handed back, left to the sweep: %r", error)
            # The tasks hear of it, and give their messages back.
            settled = time.monotonic() + 2
            while state.active_requests and time.monotonic() < settled:
                time.sleep(0.02)


def _pool_name(pool: Any) -> str:
    """Return the name of a pool; from the command line it comes as a class."""
    module = pool.partition(":")[0] if isinstance(pool, str) else str(pool.__module__)
    names = {"thread": "threads", "asyncio_pool": "asyncio"}
    name = module.rpartition(".")[2]
    return names.get(name, name)


def _begin_children(runtime: WorkerContext) -> None:
    """Give each child of a pool one slot, as the worker's concurrency counts children; trace it."""

    def begin(**_: Any) -> None:
        runtime.slots = 1
        start_export(SERVICE)

    def end(**_: Any) -> None:
        flush()  # a child ends without `atexit`

    worker_process_init.connect(begin, weak=False)
    worker_process_shutdown.connect(end, weak=False)


def _limit(runtime: WorkerContext) -> type[bootsteps.StartStopStep]:
    class Limit(bootsteps.StartStopStep):
        """Gives each new connection's channel what this process takes, and how much of it."""

        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, consumer: Any) -> None:
            channel = consumer.task_consumer.channel
            channel.slots_wanted = runtime.slots_wanted
            channel.queue_for = runtime.serving.queue_for
            if isinstance(consumer.pool, AsyncioPool):
                consumer.pool.time_tasks(consumer.app, consumer.hostname)

    return Limit


class Answers(bootsteps.StartStopStep):
    """Has the worker answer remote control with what applies to tasks of batches."""

    requires = ("celery.worker.consumer.control:Control",)

    def start(self, parent: Any) -> None:
        """Replace the handlers, at each new connection; they are all processes' otherwise."""
        for step in parent.steps:
            if isinstance(step, Control):
                step.box.node.handlers = with_answers(Panel.data)


def _service(runtime: WorkerContext) -> type[bootsteps.StartStopStep]:
    class Service(bootsteps.StartStopStep):
        """The background work of a worker, from start to shutdown."""

        requires = ("celery.worker.components:Pool",)

        def __init__(self, parent: Any, **kwargs: Any) -> None:
            super().__init__(parent, **kwargs)
            self._announcer = Announcer(parent, runtime)
            self._sweep = Sweep(parent.app, runtime)
            self._dispatcher = Dispatcher(parent.app, runtime)

        def start(self, parent: Any) -> None:
            runtime.slots = parent.concurrency
            runtime.in_process = isinstance(parent.pool, TaskPool)
            if isinstance(parent.pool, AsyncioPool):
                parent.pool.start_items = runtime.start_items
            start_export(SERVICE)
            sys.setswitchinterval(SWITCH_INTERVAL)
            # What was imported stays: the collector need not look through it ever again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(COLLECTED_AFTER, *gc.get_threshold()[1:])
            if not default_loop().started:
                # As many sync steps at once as there are items at once.
                configure(threads=parent.concurrency)
            self._announcer.start()
            self._sweep.start()
            self._dispatcher.start()

        def stop(self, parent: Any) -> None:
            self._announcer.stop()
            self._sweep.stop()
            self._dispatcher.stop()
            runtime.leases.stop()

    return Service


def _show_batches_in_flower(app: Celery, settings: Settings) -> None:
    """Add the Batches tab if `celery -A batchord.worker.app` is about to start Flower."""
    context = click.get_current_context(silent=True)
    if context is not None and context.invoked_subcommand == "flower":
        from batchord.worker import flower

        flower.install(app, settings)


def _app_or_exit(settings: Settings) -> Celery:
    """Return the app; a wrong setting ends the program with a line, not a traceback."""
    try:
        return create_worker_app(settings)
    except BatchordError as error:
        sys.exit(str(error))


app = _app_or_exit(Settings())
_show_batches_in_flower(app, Settings())
