"""Copies messages as they come into the queue, as a broker does that delivers more than once."""

import json
import uuid
from typing import Any

from tests.support.background import Background
from tests.support.harness import Deployment


class Copier(Background):
    """Puts `copies` more of each message into its queue; they are messages of their own."""

    interval = 0.002

    def __init__(self, deployment: Deployment, *, copies: int) -> None:
        super().__init__()
        self._deployment = deployment
        self._copies = copies
        self._seen: set[str] = set()
        #: Messages copied so far.
        self.copied = 0

    def look(self) -> None:
        """Copy what has come since."""
        redis = self._deployment.redis
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
