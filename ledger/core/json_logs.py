"""Log lines as JSON objects, each with the batch and the item that it is about."""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final

from batchord.chains.runtime.item_context import current_run

#: How messages name what they are about: ours as "batch=ID item=INDEX", Celery's by the task id.
_BATCH: Final = re.compile(r"\b(batch_[0-9a-f]{24})\b")
_ITEM: Final = re.compile(r"\bitem=(\d+)")


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON.

    `time` (UTC), `level`, `logger`, `message`, `process`; `batch` and `item` where the line is
    about a batch, or comes from the code of a chain that runs an item of it; `error` with a
    traceback. What was passed as `extra` is not shown: it may hold a payload.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        message = record.getMessage()
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": message,
            "process": record.process,
            **about(message),
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


def about(message: str) -> dict[str, Any]:
    """Return the batch and the item that a line is about, as far as is known."""
    run = current_run()
    # The message first: a line about another batch may be logged while an item runs.
    told = message if _BATCH.search(message) or run is None else run.name
    found: dict[str, Any] = {}
    if batch := _BATCH.search(told):
        found["batch"] = batch[1]
        if item := _ITEM.search(told):
            found["item"] = int(item[1])
    return found


def log_json_to_stderr(level: int) -> None:
    """Log to stderr as JSON from here on, warnings of Python included."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler])
    logging.captureWarnings(capture=True)
