"""A Redis transport for Celery that works on several messages at once.

kombu's own transport makes a client object and a transaction for each message that is taken and
another for each that is acknowledged: a third of a worker's time where items are short. Here one
client serves a channel, messages are taken several at a time, in one step with the note that they
are not acknowledged, and acknowledgements go out together.

A queue may hold foreign messages. They are dropped, with an error in the log that does not quote
them. kombu and Celery would end the worker, and then the next worker.
"""

import json
import logging
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

import celery.app.amqp
import kombu.connection
from kombu.transport import redis as kombu_redis
from kombu.utils.collections import HashedSeq
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps

from batchord.ledger.broker.message_copies import COPIES, copies
from batchord.ledger.broker.qos import MALFORMED, MANY, QoS, say_dropped
from batchord.ledger.core.scripts import script
from batchord.ledger.storage.redis_client import Packer

#: Messages taken in one step at most.
TAKEN_AT_ONCE: Final = 32

#: The header of a message that must be published once: the keys of `publish_once.lua` by name,
#: and the member. It is not sent.
ONCE: Final = "batchord_once"

#: Seconds between two tries to reach a server that is away, at most.
RECONNECT_WITHIN: Final = 2.0

logger = logging.getLogger(__name__)


class Channel(kombu_redis.Channel):
    """kombu's channel, with one client for all calls that do not block."""

    QoS = QoS
    _shared: Any = None

    @staticmethod
    def slots_wanted() -> float:
        """Return how many slots' worth of items to have in hand; a worker replaces this method."""
        return float("inf")

    @staticmethod
    def queue_for(message: Mapping[str, Any], queue: str) -> str | None:
        """Return the queue that a message belongs into if not to this process, else None.

        A worker replaces this method.
        """
        return None

    def put_apart(self, message: dict[str, Any], queue: str) -> bool:
        """Put a message as it is into the queue where it belongs; False if that is here."""
        where = self.queue_for(message, queue)
        if where is None:
            return False
        # Where it goes back to, should it not be acknowledged there: by the queue's name.
        message["properties"]["delivery_info"].update({"exchange": "", "routing_key": where})
        self._put(where, message)
        tag = _tag(message)
        if tag in self.qos.noted:
            # A crash before this leaves a second message, which costs nothing.
            self.qos.drop(tag)
        return True

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
        return self.shared_client.register_script(script("take").text)

    @cached_property
    def _publish_once(self) -> Any:
        return self.shared_client.register_script(script("publish_once").text)

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        headers = dict(message["headers"])
        once, tasks = headers.pop(ONCE, None), headers.pop(COPIES, None)
        message = {**message, "headers": headers}
        if once is not None:
            self._put_once(queue, message, *once)
        elif tasks is not None:
            self._put_alike(queue, message, tasks, **options)
        else:
            super()._put(queue, message, **options)

    def _put_alike(self, queue: str, message: Any, tasks: Any, **options: Any) -> None:
        """Put a message and its copies for other tasks into a queue, in one command."""
        messages = [message, *copies(message, tasks, self._next_delivery_tag)]
        batch = options.get("_publish_batch")
        if batch is None:
            for each in messages:
                super()._put(queue, each, **options)
            return
        waiting = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
        batch.add("lpush", waiting, *map(json.dumps, messages))

    def _put_once(self, queue: str, message: Any, keys: dict[str, str], member: str) -> None:
        waiting = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
        names = {**keys, "list": waiting}
        call = script("publish_once").call(names.get, {"member": member, "message": dumps(message)})
        self._publish_once(keys=call.keys, args=call.args, client=self.shared_client)

    def _create_client(self, asynchronous: bool = False) -> Any:
        return super()._create_client(asynchronous) if asynchronous else self.shared_client

    def _brpop_read(self, **options: Any) -> Any:
        # The note of this message goes with the call that takes more, in one round trip.
        self.qos.holds_note = True
        try:
            found = super()._brpop_read(**options)
        except OSError:
            raise
        except MALFORMED as error:
            say_dropped(error)
            found = True
        finally:
            self.qos.holds_note = False
        try:
            if not self._closing:
                self._take_more()
        finally:
            self.qos.write_note()
        return found

    def _receive_one(self, c: Any) -> Any:
        try:
            return super()._receive_one(c)
        except OSError:
            raise
        except MALFORMED as error:
            say_dropped(error, " and was sent to all")
            return True

    def _take_more(self) -> None:
        """Take more messages while there is room: BRPOP itself gives one message a round trip."""
        room, slots = self.qos.can_consume_max_estimate(), self.qos.room
        queues = self._queue_cycle.consume(len(self.active_queues))
        # For a single message the next BRPOP is as good.
        if room is None or room < 2 or slots <= 0 or not queues:
            return
        lists = [self._q_for_pri(queue, step) for step in self.priority_steps for queue in queues]
        names = {"unacked": self.unacked_key, "unacked_index": self.unacked_index_key}
        given = {
            "messages": min(room, TAKEN_AT_ONCE),
            "slots": min(slots, MANY),
            "now_s": time.time(),
            "queues": len(queues),
        }
        note = self.qos.take_note()
        if note is not None:
            given |= {"first_tag": note[0], "first_note": note[1]}
        call = script("take").call(names.get, given, more_keys=lists)
        try:
            taken = self._take(keys=call.keys, args=call.args, client=self.shared_client)
        except BaseException:
            self.qos.hold_note(note)
            raise
        for place, tag, raw in zip(taken[::3], taken[1::3], taken[2::3], strict=True):
            queue = queues[int(place) % len(queues)]
            try:
                if not tag:
                    raise ValueError("no message")
                # Not kombu's `loads`, which looks for types that an envelope does not have.
                message = json.loads(raw)
            except MALFORMED as error:
                say_dropped(error, f" from queue {queue}")
                if tag:
                    self.qos.drop(bytes_to_str(tag))
                continue
            self.qos.noted.add(bytes_to_str(tag))
            self.connection._deliver(message, queue)


class Transport(kombu_redis.Transport):
    """kombu's transport with our channel."""

    Channel = Channel

    def _deliver(self, message: Any, queue: str) -> None:
        """Deliver a message; drop it if its consumer cannot read it."""
        tag = None
        try:
            tag = _tag(message)
            if any(channel.put_apart(message, queue) for channel in self.channels):
                return
            super()._deliver(message, queue)
        except OSError:
            raise
        except MALFORMED as error:
            say_dropped(error, f" from queue {queue}")
            for channel in self.channels if tag is not None else ():
                channel.qos.drop(tag)


def _tag(message: Any) -> str:
    """Return a message's delivery tag; raise an error of `MALFORMED` if it has no valid tag."""
    tag = message["properties"]["delivery_tag"]
    if not isinstance(tag, str):
        raise TypeError(type(tag))
    return tag


class Connection(kombu.connection.Connection):
    """A connection to Redis by its usual URL, which is also what Flower shows."""

    def get_transport_cls(self) -> type[Transport]:
        """Return our transport, for every form of Redis URL."""
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
        """Connect as kombu does, but find a returned server at once and not in half a minute."""
        intervals = (interval_start, interval_step, interval_max)
        return super().ensure_connection(errback, max_retries, *intervals, **options)

    def Pool(self, limit: int | None = None, **options: Any) -> "ConnectionPool":
        """Return a pool of our connections, from which messages are published."""
        return ConnectionPool(self, limit, **options)

    def __eqhash__(self) -> Any:
        """Return what pools are told apart by: apps of other classes have pools of their own."""
        return HashedSeq(type(self).__qualname__, super().__eqhash__())


class PooledConnection(kombu.connection.PooledConnection, Connection):
    """One of our connections, in a pool."""


class ConnectionPool(kombu.connection.ConnectionPool):
    """kombu's pool, whose connections would have kombu's transport."""

    def new(self) -> PooledConnection:
        """Make a connection."""
        return PooledConnection(self, **dict(self.connection._info(resolve=False)))


class AMQP(celery.app.amqp.AMQP):
    """The AMQP class of our Celery app, with our connections; other apps keep theirs."""

    Connection = Connection
