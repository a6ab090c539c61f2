"""The logs of workers and Flower: their format, and no line for each HTTP request."""

import logging
from typing import Any, Final

from celery.signals import after_setup_logger, after_setup_task_logger

from batchord.ledger.core.json_logs import JsonFormatter, log_json_to_stderr
from batchord.ledger.settings import Settings

#: Libraries that log each request at INFO, several lines an item.
_CHATTY: Final = ("httpx2", "httpx", "openai")


def set_up(settings: Settings) -> None:
    """Have Celery's logs follow the settings; call it before Celery sets them up."""
    if settings.log_format == "json":
        # What comes before that, and Flower, which has no set-up of Celery's.
        log_json_to_stderr(logging.WARNING)
        after_setup_logger.connect(_as_json, weak=False)
        after_setup_task_logger.connect(_as_json, weak=False)
    after_setup_logger.connect(_quiet, weak=False)


def _as_json(logger: logging.Logger, **_: Any) -> None:
    for handler in logger.handlers:
        handler.setFormatter(JsonFormatter())


def _quiet(loglevel: int, **_: Any) -> None:
    if loglevel >= logging.INFO:
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
