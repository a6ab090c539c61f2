"""The worker's Celery app: `celery -A worker.app worker` and `celery -A worker.app flower`."""

from typing import Any

from celery import Celery, bootsteps

from chains.loop import configure, default_loop
from ledger.celery_app import create_app
from ledger.models import announcements
from ledger.settings import Settings
from worker.runtime import Runtime
from worker.sweep import Sweep
from worker.tasks import register_tasks


def create_worker_app(settings: Settings) -> Celery:
    """Return an app with the tasks; a worker on it also announces its chains and sweeps."""
    app = create_app(settings, include=settings.chains)
    runtime = Runtime(settings)
    register_tasks(app, runtime)
    app.steps["worker"].add(_service(runtime))
    return app


def _service(runtime: Runtime) -> type[bootsteps.StartStopStep]:
    class Service(bootsteps.StartStopStep):
        """What a worker does beside its tasks, from start to shutdown."""

        requires = ("celery.worker.components:Pool",)

        def __init__(self, parent: Any, **kwargs: Any) -> None:
            super().__init__(parent, **kwargs)
            self._sweep = Sweep(parent.app, runtime)

        def start(self, parent: Any) -> None:
            if not default_loop().started:
                # As many sync steps at once as there are items at once.
                configure(threads=parent.concurrency)
            runtime.store.announce(announcements())
            self._sweep.start()

        def stop(self, parent: Any) -> None:
            self._sweep.stop()
            runtime.leases.stop()

    return Service


app = create_worker_app(Settings())
