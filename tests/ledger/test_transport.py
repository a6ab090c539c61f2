"""Messages are taken several at a time without losing any, and acknowledged together."""

from collections.abc import Iterator
from typing import Any

import kombu.transport.redis
import pytest
from celery import Celery
from redis.exceptions import ResponseError

from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.broker.transport import Channel
from batchord.ledger.core.message_ids import PRIORITY_SEPARATOR, PRIORITY_STEPS
from tests.support.harness import Deployment, wait_until

pytestmark = pytest.mark.timeout(60)


class Taker:
    """A consumer of the queues, without a worker around it."""

    def __init__(self, app: Celery, prefetch: int, on_message: Any = None) -> None:
        self.connection = app.connection_for_read()
        self.channel = self.connection.default_channel
        self.taken: list[Any] = []
        consumer = app.amqp.TaskConsumer(
            self.channel, on_message=on_message or self.taken.append, accept=["json"]
        )
        consumer.qos(prefetch_count=prefetch)
        consumer.consume()

    def drain(self) -> None:
        self.connection.drain_events(timeout=2)

    @property
    def places(self) -> list[int]:
        return [message.headers["place"] for message in self.taken]


@pytest.fixture
def app(deployment: Deployment) -> Iterator[Celery]:
    app = create_app(deployment.settings)
    yield app
    app.close()


def send(app: Celery, place: int, *, queue: str, priority: int = 5) -> None:
    app.send_task("some.task", queue=queue, priority=priority, headers={"place": place})


def unacked(deployment: Deployment) -> int:
    noted, index = deployment.redis.hlen("unacked"), deployment.redis.zcard("unacked_index")
    assert noted == index
    return int(noted)


def test_one_call_takes_as_many_as_there_is_room_for(deployment: Deployment, app: Celery) -> None:
    _, queue, *_ = deployment.settings.queues
    for place in range(30):
        send(app, place, queue=queue)
    taker = Taker(app, prefetch=20)
    taker.drain()
    assert taker.places == list(range(20)), "the oldest first"
    assert unacked(deployment) == 20
    assert deployment.queued() == 10
    taker.connection.close()


def commands(deployment: Deployment) -> dict[str, int]:
    """The commands that the server has run, those of scripts too."""
    stats: Any = deployment.redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}


def test_taking_costs_the_server_few_commands(deployment: Deployment, app: Celery) -> None:
    _, queue, *_ = deployment.settings.queues
    for place in range(30):
        send(app, place, queue=queue)
    taker = Taker(app, prefetch=20)
    before = commands(deployment)
    taker.drain()
    used = {name: n - before.get(name, 0) for name, n in commands(deployment).items()}
    assert len(taker.taken) == 20
    lists = len(deployment.settings.queues) * len(PRIORITY_STEPS)
    assert used["rpop"] <= 19 + lists, "an empty list is looked at once"
    assert (used["hset"], used["zadd"], used["evalsha"]) == (1, 1, 1), "one note of all"
    taker.connection.close()


def test_a_message_alone_is_noted_too(deployment: Deployment, app: Celery) -> None:
    _, queue, *_ = deployment.settings.queues
    send(app, 1, queue=queue)
    taker = Taker(app, prefetch=1)  # no room for more: nothing else is taken
    taker.drain()
    assert taker.places == [1]
    assert unacked(deployment) == 1
    taker.taken[0].ack()
    taker.channel.qos.write_acks()
    assert unacked(deployment) == 0
    taker.connection.close()


@pytest.mark.parametrize(
    ("give_back", "left"), [("ack", 0), ("reject", 0), ("requeue", 1)], ids=str
)
def test_a_message_that_is_done_with_as_it_comes_leaves_no_note(
    deployment: Deployment, app: Celery, give_back: str, left: int
) -> None:
    _, queue, *_ = deployment.settings.queues
    send(app, 1, queue=queue)
    taker = Taker(app, prefetch=10, on_message=lambda message: getattr(message, give_back)())
    taker.drain()
    taker.channel.qos.write_acks()
    assert unacked(deployment) + deployment.queued() == left
    taker.connection.close()
    assert deployment.queued() == left


@pytest.mark.parametrize("prefetch", [3, 20])
def test_a_queue_that_is_no_list_costs_no_message(
    deployment: Deployment, app: Celery, prefetch: int
) -> None:
    first, *_, last = deployment.settings.queues
    for place in range(8):
        send(app, place, queue=first)
    taker = Taker(app, prefetch=prefetch)
    # Behind the list that has the messages, in the order of priorities.
    damaged = f"{last}{PRIORITY_SEPARATOR}{PRIORITY_STEPS[-1]}"
    deployment.redis.set(damaged, "damaged")
    if prefetch == 3:
        taker.drain()
        assert len(taker.taken) == 3
    else:
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            taker.drain()
    assert unacked(deployment) + deployment.redis.llen(f"{first}{PRIORITY_SEPARATOR}3") == 8
    deployment.redis.delete(damaged)
    taker.connection.close()


def test_messages_are_published_by_our_transport_and_other_apps_keep_theirs(
    deployment: Deployment, app: Celery
) -> None:
    url = deployment.settings.url()
    theirs = Celery("theirs", broker=url, set_as_current=False, fixups=())
    theirs.conf.broker_transport_options = app.conf.broker_transport_options
    with app.producer_pool.acquire() as ours, theirs.producer_pool.acquire() as other:
        assert type(ours.channel) is Channel
        assert type(other.channel) is kombu.transport.redis.Channel
    theirs.close()


def test_queues_take_turns_and_priorities_do_not(deployment: Deployment, app: Celery) -> None:
    first, rest, *_ = deployment.settings.queues
    for place in range(6):
        send(app, 100 + place, queue=rest)
    for place in range(3):
        send(app, 200 + place, queue=first)
    send(app, 300, queue=rest, priority=0)
    taker = Taker(app, prefetch=20)
    taker.drain()
    assert taker.places[0] == 300
    assert {100, 200, 101, 201, 102, 202} == set(taker.places[1:7])
    assert taker.places[7:] == [103, 104, 105]
    taker.connection.close()


def test_what_is_no_message_is_dropped_and_what_lies_beside_it_is_not(
    deployment: Deployment, app: Celery
) -> None:
    _, queue, *_ = deployment.settings.queues
    for place in range(6):
        send(app, place, queue=queue)
        for junk in ("no JSON", "[]", '{"headers": 1}', "[" * 5000):
            # Where priority 5 goes.
            deployment.redis.lpush(f"{queue}{PRIORITY_SEPARATOR}3", junk)
    taker = Taker(app, prefetch=40)
    taker.drain()
    assert taker.places == list(range(6))
    assert unacked(deployment) == 6
    assert deployment.queued() == 0
    taker.connection.close()


def test_acknowledgements_are_written_together_and_soon(
    deployment: Deployment, app: Celery
) -> None:
    _, queue, *_ = deployment.settings.queues
    for place in range(5):
        send(app, place, queue=queue)
    taker = Taker(app, prefetch=10)
    taker.drain()
    for message in taker.taken:
        message.ack()
    assert unacked(deployment) == 5, "they wait for company"

    def written() -> bool:
        taker.channel.qos.can_consume()  # a worker asks at every turn of its loop
        return unacked(deployment) == 0

    wait_until(written, what="the acknowledgements are written")
    taker.connection.close()
    assert deployment.queued() == 0


def test_acknowledgements_that_could_not_be_written_are_written_later(
    deployment: Deployment, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, queue, *_ = deployment.settings.queues
    send(app, 1, queue=queue)
    taker = Taker(app, prefetch=10)
    taker.drain()
    taker.taken[0].ack()
    with monkeypatch.context() as patch:
        patch.setattr(
            "redis.client.Pipeline.execute", lambda self: (_ for _ in ()).throw(OSError("gone"))
        )
        with pytest.raises(OSError, match="gone"):
            taker.channel.qos.write_acks()
    taker.channel.qos.write_acks()
    assert unacked(deployment) == 0
    taker.connection.close()


def test_what_was_not_acknowledged_goes_back_when_the_worker_ends(
    deployment: Deployment, app: Celery
) -> None:
    _, queue, *_ = deployment.settings.queues
    for place in range(5):
        send(app, place, queue=queue)
    taker = Taker(app, prefetch=10)
    taker.drain()
    taker.taken[0].ack()
    taker.taken[3].ack()
    taker.connection.close()
    assert unacked(deployment) == 0
    assert deployment.queued() == 3


def test_a_silent_network_that_only_the_look_for_old_messages_has_met_is_known_to_all(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    taker = Taker(app, prefetch=10)
    qos = taker.channel.qos
    tries: list[str] = []

    def silent(_: object, key: str, *__: object) -> int:
        tries.append(key)
        raise TimeoutError("silent")

    with monkeypatch.context() as patch:
        patch.setattr("redis.client.Redis.zcount", silent)
        for _ in range(3):
            taker.connection.transport.cycle.maybe_restore_messages()
    assert len(tries) == 1, "each try takes the socket's whole timeout"
    with pytest.raises(TimeoutError, match="silent"):
        qos.can_consume()
    taker.connection.close()


def test_a_server_that_is_away_is_looked_for_every_two_seconds_however_long(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Enough(Exception):
        pass

    waits: list[float] = []

    def tried(error: Exception, interval: float) -> None:
        waits.append(interval)
        if len(waits) == 10:
            raise Enough

    monkeypatch.setattr("kombu.utils.functional.sleep", lambda _: None)
    connection = app.connection_for_read("redis://127.0.0.1:1/0")  # nobody listens there
    with pytest.raises(Enough):
        connection.ensure_connection(tried)
    assert min(waits) > 0
    assert max(waits) == 2


def test_flower_and_the_logs_see_the_usual_url(deployment: Deployment, app: Celery) -> None:
    connection = app.connection_for_read()
    assert connection.as_uri() == deployment.url.replace("//", "//:**@")
    assert connection.transport.driver_type == "redis"
    connection.close()
