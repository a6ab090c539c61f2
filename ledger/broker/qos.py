"""What a worker has in hand and has not acknowledged, noted in Redis and written in groups."""

import logging
import threading
import time
from typing import Any, Final

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.json import dumps

#: Acknowledgements that are written together at most, and how long one waits for others. A crash
#: before they are written has the messages delivered again, and their claims refused.
ACKS_AT_ONCE: Final = 64
ACKS_WITHIN: Final = 0.05

#: More slots than there ever are.
MANY: Final = 1_000_000

#: The header that says how many slots the items of a message take.
SLOTS: Final = "slots"

#: Errors of reading a message that Batchord has not published; not those of a connection.
MALFORMED: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)

logger = logging.getLogger(__name__)


def say_dropped(error: Exception, where: str = "") -> None:
    """Say that something was dropped, and not what: a stranger may have written it."""
    logger.error("dropped what is no message of ours%s: %s", where, type(error).__name__)


class QoS(kombu_redis.QoS):
    """What is delivered and not acknowledged; writes acknowledgements in groups."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()
        self._acks: list[str] = []
        self._oldest_ack = 0.0
        #: What the look for unacknowledged messages has met; the connection is to be made again.
        self._broken: Exception | None = None
        #: Slots that the items of each message in hand take, and of all together.
        self._slots: dict[str, int] = {}
        self._in_hand = 0
        #: Messages that are noted as unacknowledged already.
        self.noted: set[str] = set()

    @property
    def room(self) -> float:
        """How many more slots' work there is room for, beside Celery's limit of messages."""
        return float(self.channel.slots_wanted()) - self._in_hand

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note the message as unacknowledged, unless it was when it was taken."""
        if delivery_tag in self.noted:
            self.noted.discard(delivery_tag)
        else:
            to = message.delivery_info
            pipe = self.channel.shared_client.pipeline(transaction=False)
            # The message first: a place in the index alone says nothing.
            pipe.hset(
                self.unacked_key,
                delivery_tag,
                dumps([message._raw, to["exchange"], to["routing_key"]]),
            )
            pipe.zadd(self.unacked_index_key, {delivery_tag: time.time()})
            try:
                pipe.execute()
            except (*self.channel.connection_errors, self.channel.ResponseError) as error:
                # It is out of the queue, and here alone: it runs all the same. Should we die, its
                # items are missed by the sweep.
                logger.warning("not noted as unacknowledged: %s", type(error).__name__)
        slots = message.headers.get(SLOTS, 1)
        if type(slots) is not int or not 1 <= slots <= MANY:
            raise ValueError(SLOTS)
        with self._lock:
            # Delivered again while it is in hand, it takes no more room.
            self._in_hand += slots - self._slots.get(delivery_tag, 0)
            self._slots[delivery_tag] = slots
        virtual.QoS.append(self, message, delivery_tag)

    def can_consume(self) -> bool:
        """Whether there is room for a message; asked at every turn of the worker's loop."""
        if self._broken is not None:
            raise self._broken
        self.write_acks(older_than=ACKS_WITHIN)
        return bool(super().can_consume()) and self.room > 0

    def ack(self, delivery_tag: str) -> None:
        """Take the message as acknowledged; that is written soon."""
        with self._lock:
            self._in_hand -= self._slots.pop(delivery_tag, 0)
            if not self._acks:
                self._oldest_ack = time.monotonic()
            self._acks.append(delivery_tag)
            due = len(self._acks) >= ACKS_AT_ONCE
        self._quick_ack(delivery_tag)
        if due:
            self.write_acks()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give the message back, or drop it."""
        with self._lock:
            self._in_hand -= self._slots.pop(delivery_tag, 0)
        super().reject(delivery_tag, requeue)

    def drop(self, delivery_tag: str) -> None:
        """Forget a message, wherever reading it has failed."""
        self.noted.discard(delivery_tag)
        self.reject(delivery_tag)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Give a message back; delete the note of an invalid message."""
        try:
            super().restore_by_tag(tag, client, leftmost)
        except MALFORMED as error:
            say_dropped(error, " and was not acknowledged")
            self.drop(tag)

    def write_acks(self, *, older_than: float = 0.0) -> None:
        """Write the acknowledgements, if the first of them is `older_than` seconds old."""
        with self._lock:
            if not self._acks or time.monotonic() - self._oldest_ack < older_than:
                return
            tags, self._acks = self._acks, []
        pipe = self.channel.shared_client.pipeline(transaction=False)
        pipe.zrem(self.unacked_index_key, *tags)
        pipe.hdel(self.unacked_key, *tags)
        try:
            pipe.execute()
        except BaseException:
            with self._lock:
                self._acks[:0] = tags  # for the next time
            raise

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        """Give back messages that have been unacknowledged for too long.

        Usually there are no such messages, and one round trip finds that out instead of five: the
        main thread waits for them, and on a slow network it would do nothing else.
        """
        if self._broken is not None:
            return
        until = time.time() - self.visibility_timeout
        try:
            if self.channel.shared_client.zcount(self.unacked_index_key, 0, until):
                super().restore_visible(start, num, interval)
        except self.channel.connection_errors as error:
            # kombu keeps it to itself, and this timer is due again at once: on a network that is
            # silent the worker would wait here, and never come to make a new connection.
            self._broken = error

    def restore_unacked(self, client: Any = None) -> None:
        """Give back what is not acknowledged, and nothing else."""
        if self.channel.connection.client is None:
            # After a lost connection kombu closes the channel a second time, when its transport is
            # gone: it would raise AttributeError, which ends the worker. The sweep publishes again.
            return
        self.write_acks()
        super().restore_unacked(client)
