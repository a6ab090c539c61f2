"""The Batches tab in Flower: pages, a JSON API and metrics, served by Flower itself.

Flower has no plugins. It builds its Tornado application from two module values, the handlers and
the settings of `flower.urls`; `install` adds to both before it does. Login, `--read_only`, CSRF and
looks are Flower's: our handlers are its handlers' subclasses, our templates extend its base page.
"""

from celery import Celery

from batchord.ledger.settings import Settings


def install(app: Celery, settings: Settings) -> None:
    """Have the Flower that this process is about to start show batches. Connects to nothing."""
    # Here, as workers import this package's parent and have no use for a web server.
    from flower import urls

    from batchord.worker.flower.queries import Queries
    from batchord.worker.flower.routes import routes
    from batchord.worker.flower.template_loader import BatchLink, Loader

    if "template_loader" in urls.settings:
        return
    # In front of Flower's: `/metrics` is answered by our subclass, and its last one takes all.
    urls.handlers[:0] = routes(Queries(app, settings))
    urls.settings["template_loader"] = Loader(urls.settings["template_path"])
    urls.settings["ui_modules"] = {"BatchLink": BatchLink}
