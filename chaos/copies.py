"""Copies messages as they come into the queue, as a broker does that delivers more than once."""

import json
import threading
import uuid
from types import TracebackType
from typing import Any, Final

from tests.harness import Deployment

#: Seconds between two looks.
_LOOK: Final = 0.002


class Copier:
    """Puts `copies` more of each message into its queue; they are messages of their own."""

    def __init__(self, deployment: Deployment, *, copies: int) -> None:
        self._deployment = deployment
        self._copies = copies
        self._seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="copier", daemon=True)
        #: Messages copied so far.
        self.copied = 0

    def __enter__(self) -> "Copier":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        redis = self._deployment.redis
        while not self._stop.wait(_LOOK):
            for name in self._deployment.lists():
                for text in redis.lrange(name, 0, -1):
                    message = json.loads(text)
                    if message["properties"]["delivery_tag"] not in self._seen:
                        self._seen.add(message["properties"]["delivery_tag"])
                        redis.rpush(name, *(self._copy(message) for _ in range(self._copies)))
                        self.copied += 1

    def _copy(self, message: dict[str, Any]) -> str:
        tag = str(uuid.uuid4())
        self._seen.add(tag)
        properties = {**message["properties"], "delivery_tag": tag}
        return json.dumps({**message, "properties": properties})
