"""The unacknowledged messages of a worker; acknowledgements are written to Redis in groups."""

import logging
import threading
import time
from typing import Any, Final

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.json import dumps

#: Acknowledgements that are written together at most, and the seconds that they wait for others.
#: After a crash before the write, the messages are delivered again, and their claims refused.
ACKS_AT_ONCE: Final = 64
ACKS_WITHIN: Final = 0.05

#: More slots than there ever are.
MANY: Final = 1_000_000

#: The header with the number of slots that the items of a message take.
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
    """Log that a message was dropped, without its text, which a stranger may have written."""
    logger.error("dropped what is no message of ours%s: %s", where, type(error).__name__)


class QoS(kombu_redis.QoS):
    """kombu's QoS, which counts slots and writes acknowledgements in groups."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()
        self._acks: list[str] = []
        self._oldest_ack = 0.0
        #: An error of `restore_visible`: the connection must be made again.
        self._broken: Exception | None = None
        #: Slots that the items of each message in hand take, and of all together.
        self._slots: dict[str, int] = {}
        self._in_hand = 0
        #: Messages that are noted as unacknowledged already.
        self.noted: set[str] = set()
        #: Whether the next note waits for `take_note`, and that note: the tag and the message.
        self.holds_note = False
        self._note: tuple[str, str] | None = None

    @property
    def room(self) -> float:
        """Slots' worth of items that there is room for, beside Celery's limit of messages."""
        return float(self.channel.slots_wanted()) - self._in_hand

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note the message as unacknowledged, unless it was noted as it was taken."""
        if delivery_tag in self.noted:
            self.noted.discard(delivery_tag)
        else:
            to = message.delivery_info
            note = dumps([message._raw, to["exchange"], to["routing_key"]])
            self._note = delivery_tag, note
            if not self.holds_note:
                self.write_note()
        slots = message.headers.get(SLOTS, 1)
        if type(slots) is not int or not 1 <= slots <= MANY:
            raise ValueError(SLOTS)
        with self._lock:
            # A second delivery of a message in hand takes no more room.
            self._in_hand += slots - self._slots.get(delivery_tag, 0)
            self._slots[delivery_tag] = slots
        virtual.QoS.append(self, message, delivery_tag)

    def take_note(self) -> tuple[str, str] | None:
        """Return the tag and the text of a note that was held, for the caller to write."""
        note, self._note = self._note, None
        return note

    def hold_note(self, note: tuple[str, str] | None) -> None:
        """Hold a note that could not be written."""
        self._note = note

    def _forget_note(self, delivery_tag: str) -> None:
        if self._note is not None and self._note[0] == delivery_tag:
            self._note = None

    def write_note(self) -> None:
        """Write the note that was held, if there is one."""
        note = self.take_note()
        if note is None:
            return
        pipe = self.channel.shared_client.pipeline(transaction=False)
        # The message first: an index entry without its message is useless.
        pipe.hset(self.unacked_key, *note)
        pipe.zadd(self.unacked_index_key, {note[0]: time.time()})
        try:
            pipe.execute()
        except (*self.channel.connection_errors, self.channel.ResponseError) as error:
            # It has left the queue, and runs all the same. If this process dies, the sweep
            # finds that its items are missing, and publishes them again.
            logger.warning("not noted as unacknowledged: %s", type(error).__name__)

    def can_consume(self) -> bool:
        """Return whether there is room for a message; called at every turn of the worker's loop."""
        if self._broken is not None:
            raise self._broken
        self.write_acks(older_than=ACKS_WITHIN)
        return bool(super().can_consume()) and self.room > 0

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge the message; Redis is told with the next group."""
        self._forget_note(delivery_tag)
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
        if requeue:
            self.write_note()  # it is given back as it is noted
        else:
            self._forget_note(delivery_tag)
        with self._lock:
            self._in_hand -= self._slots.pop(delivery_tag, 0)
        super().reject(delivery_tag, requeue)

    def drop(self, delivery_tag: str) -> None:
        """Drop a message that could not be read."""
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
            # kombu hides the error, and this timer is due again at once: on a silent network the
            # worker would wait here for ever, and never make a new connection.
            self._broken = error

    def restore_unacked(self, client: Any = None) -> None:
        """Give back the messages that are not acknowledged."""
        if self.channel.connection.client is None:
            # After a lost connection kombu closes the channel a second time, when its transport is
            # gone: it would raise AttributeError, which ends the worker. The sweep publishes again.
            return
        self.write_acks()
        super().restore_unacked(client)
