"""Celery's way through Redis, without what it spends on every message.

kombu's own transport makes a client object and a transaction for each message that is taken and
another for each that is acknowledged: a third of a worker's time where items are short. Here one
client serves a channel, messages are taken several at a time, in one step with the note that they
are not acknowledged, and acknowledgements go out together.

Whoever can write to the queue can put anything there: what is no message of ours is dropped, with
an error in the log that does not quote it. kombu and Celery would end the worker, and the next one.
"""

import logging
import threading
import time
from functools import cached_property
from importlib.resources import files
from typing import Any, Final

import celery.app.amqp
from kombu.connection import Connection as KombuConnection
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

from ledger.connection import Packer

#: Acknowledgements that are written together at most, and how long one waits for others. A crash
#: before they are written has the messages delivered again, and their claims refused.
ACKS_AT_ONCE: Final = 64
ACKS_WITHIN: Final = 0.05

#: Messages taken in one step at most.
TAKEN_AT_ONCE: Final = 32


#: More slots than there ever are.
MANY: Final = 1_000_000

#: Seconds between two tries to reach a server that is away, at most.
RECONNECT_WITHIN: Final = 2.0

#: The header that says how many slots the items of a message take.
SLOTS: Final = "slots"

#: What reading a message raises that is none of ours. A connection that broke is none of these.
MALFORMED: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)

logger = logging.getLogger(__name__)


def _say_dropped(error: Exception, where: str = "") -> None:
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
        """Give a message back; the note of what is none is deleted."""
        try:
            super().restore_by_tag(tag, client, leftmost)
        except MALFORMED as error:
            _say_dropped(error, " and was not acknowledged")
            self.drop(tag)

    def write_acks(self, *, older_than: float = 0.0) -> None:
        """Write what was acknowledged, if the first of it is so many seconds old."""
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
        """Give back what has been unacknowledged for too long.

        Almost always there is none, and then it is one round trip and not five: the main thread
        waits for them, and on a slow network it would come to nothing else.
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
        self.write_acks()
        super().restore_unacked(client)


class Channel(kombu_redis.Channel):
    """kombu's channel with one client for all that does not block."""

    QoS = QoS
    _shared: Any = None

    @staticmethod
    def slots_wanted() -> float:
        """How many slots' work to have in hand; a worker puts an answer of its own here."""
        return float("inf")

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        return {**super()._connparams(asynchronous), "command_packer": Packer()}

    @property
    def shared_client(self) -> Any:
        """The client for single calls; it borrows a connection for each, from any thread."""
        if self._shared is None or self._shared.connection_pool is not self.pool:
            self._shared = super()._create_client()
        return self._shared

    @cached_property
    def _take(self) -> Any:
        script = (files("ledger") / "lua" / "take.lua").read_text()
        return self.shared_client.register_script(script)

    def _create_client(self, asynchronous: bool = False) -> Any:
        return super()._create_client(asynchronous) if asynchronous else self.shared_client

    def _brpop_read(self, **options: Any) -> Any:
        try:
            found = super()._brpop_read(**options)
        except OSError:
            raise
        except MALFORMED as error:
            _say_dropped(error)
            found = True
        if not self._closing:
            self._take_more()
        return found

    def _receive_one(self, c: Any) -> Any:
        try:
            return super()._receive_one(c)
        except OSError:
            raise
        except MALFORMED as error:
            _say_dropped(error, " and was sent to all")
            return True

    def _take_more(self) -> None:
        """Take what else there is room for: BRPOP itself gives one message a round trip."""
        room, slots = self.qos.can_consume_max_estimate(), self.qos.room
        queues = self._queue_cycle.consume(len(self.active_queues))
        # For one message the next BRPOP does as well.
        if room is None or room < 2 or slots <= 0 or not queues:
            return
        lists = [self._q_for_pri(queue, step) for step in self.priority_steps for queue in queues]
        taken = self._take(
            keys=[self.unacked_key, self.unacked_index_key, *lists],
            args=[min(room, TAKEN_AT_ONCE), min(slots, MANY), time.time(), len(queues)],
            client=self.shared_client,
        )
        for place, tag, raw in zip(taken[::3], taken[1::3], taken[2::3], strict=True):
            queue = queues[int(place) % len(queues)]
            try:
                if not tag:
                    raise ValueError("no message")
                message = loads(bytes_to_str(raw))
            except MALFORMED as error:
                _say_dropped(error, f" from queue {queue}")
                if tag:
                    self.qos.drop(bytes_to_str(tag))
                continue
            self.qos.noted.add(bytes_to_str(tag))
            self.connection._deliver(message, queue)


class Transport(kombu_redis.Transport):
    """kombu's transport with our channel."""

    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        """Deliver a message; what its consumer cannot read is dropped."""
        tag = None
        try:
            tag = _tag(message)
            super()._deliver(message, queue)
        except OSError:
            raise
        except MALFORMED as error:
            _say_dropped(error, f" from queue {queue}")
            for channel in self.channels if tag is not None else ():
                channel.qos.drop(tag)


def _tag(message: Any) -> str:
    """The tag of what may be a message; one of `MALFORMED` if it has none."""
    tag = message["properties"]["delivery_tag"]
    if not isinstance(tag, str):
        raise TypeError(type(tag))
    return tag


class Connection(KombuConnection):
    """A connection to Redis by its usual URL, which is also what Flower shows."""

    def get_transport_cls(self) -> type[Transport]:
        """Our transport, whatever form of Redis URL it is."""
        return Transport

    def ensure_connection(
        self,
        errback: Any = None,
        max_retries: int | None = None,
        interval_start: float = 0.5,
        interval_step: float = 0.5,
        interval_max: float = RECONNECT_WITHIN,
        **options: Any,
    ) -> Any:
        """As kombu's, which waits up to half a minute after the server is back."""
        intervals = (interval_start, interval_step, interval_max)
        return super().ensure_connection(errback, max_retries, *intervals, **options)


class AMQP(celery.app.amqp.AMQP):
    """What our Celery app makes its connections with; other apps of the process keep theirs."""

    Connection = Connection
