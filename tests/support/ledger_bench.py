"""Producers, workers and the sweep of one batch, in this process and step by step.

Messages are the real ones: they are published to the real queue, and taken from it by hand.
"""

import base64
import json
from collections.abc import Iterable, Sequence

from batchord.chains import Usage
from batchord.ledger.broker.publisher import gather, publish_tasks
from batchord.ledger.core.message_ids import GATHER
from batchord.ledger.models import BatchStatus, ItemStatus
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.item_transitions import Checkpoint, ClaimRequest, Deferral, Settlement
from batchord.worker.tasks import close_shard
from tests.support.ledger_desk import CODES, Desk, Held


class Bench(Desk):
    """Everybody who works on the batch. Operations are those of the real program."""

    def queue(self) -> list[tuple[str, str]]:
        """The messages that wait, each with the name of its list."""
        names = self.deployment.lists()
        with self.redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.lrange(name, 0, -1)
            return [
                (name, text)
                for name, all_ in zip(names, pipe.execute(), strict=True)
                for text in all_
            ]

    def message(self, which: int) -> tuple[str, str]:
        """One of those that wait."""
        waiting = self.queue()
        return waiting[which % len(waiting)]

    def take(self, message: tuple[str, str]) -> None:
        self.redis.lrem(message[0], 1, message[1])

    def deliver(self, message: tuple[str, str], *, alone: bool, ends: str | None) -> None:
        """Do what the message says; without `ends`, what runs does not end."""
        text = json.loads(message[1])
        _, kwargs, _ = json.loads(base64.b64decode(text["body"]))
        if kwargs["batch_id"] != self.batch_id:
            return  # of one that was purged: the model has forgotten it
        if text["headers"]["task"] == GATHER:
            close_shard(self.app, self._runtime, **kwargs)
            return
        batch_id, shard = kwargs["batch_id"], kwargs["shard"]
        token = f"token-{next(self._tokens)}"
        items = range(kwargs["index"], kwargs["index"] + kwargs["count"])
        verdicts = self.claim(batch_id, shard, [(index, token) for index in items], alone=alone)
        if set(verdicts) == {"settled"} and BatchReader(self.store).complete(batch_id, shard):
            self._send_gather(shard)
        mine = [one for one in self.held if one.token == token]
        if mine and ends:
            self.settle(mine, ends)

    def begin_all(self) -> None:
        """Begin all that waits in the queue."""
        for message in self.queue():
            self.take(message)
            self.deliver(message, alone=True, ends=None)

    def claim(
        self, batch_id: str, shard: int, items: Iterable[tuple[int, str]], *, alone: bool
    ) -> list[str]:
        claim_requests = [
            ClaimRequest(batch_id=batch_id, index=index, token=token, alone=alone)
            for index, token in items
        ]
        _, claims = self.item_leases.swap([], claim_requests)
        for claim_request, claim in zip(claim_requests, claims, strict=True):
            if claim.verdict in ("run", "lost", "suspect", "same"):
                used = json.loads(claim.usage)["input_tokens"] if claim.usage else 0
                now = Held(
                    shard,
                    claim_request.index,
                    claim_request.token,
                    claim.attempt,
                    claim.verdict,
                    used,
                )
                if claim.verdict == "same":
                    error = json.loads(claim.outcome).get("error")
                    now.ends = error["code"] if error else "succeed"
                self.held = [one for one in self.held if not one.same(now)] + [now]
        return [claim.verdict for claim in claims]

    def claim_anew(self, one: Held, *, alone: bool) -> None:
        """Another execution wants the item."""
        token = f"token-{next(self._tokens)}"
        self.claim(self.batch_id, one.shard, [(one.index, token)], alone=alone)

    def settle(self, some: Iterable[Held], how: str) -> None:
        """Have these executions end; `how`: succeed, stop as the batch does, or an error's code."""
        stopped = self.item_leases.stopping([self.batch_id]).get(self.batch_id)
        settlements, shards = [], []
        for one in some:
            status, error, code = ItemStatus.SUCCEEDED, "", ""
            if how == "stop" and stopped is not None:
                status = stopped
            elif one.verdict == "lost" or (one.ends or how) in CODES:
                code = "worker_lost" if one.verdict == "lost" else one.ends or how
                status, error = ItemStatus.FAILED, f',"error":{{"code":"{code}","message":""}}'
            one.told = Settlement(
                batch_id=self.batch_id,
                index=one.index,
                token=one.token,
                shard=one.shard,
                attempt=one.attempt,
                status=status,
                outcome=f'{{"status":"{status}"{error}}}',
                code=code,
                output=f'"{one.token} {one.index}"' if status is ItemStatus.SUCCEEDED else "null",
                usage={"requests": 1, "input_tokens": one.used + 1},
                busy=0.001,
            )
            settlements.append(one.told)
            shards.append(one.shard)
        self.tell(settlements)

    def tell(self, settlements: Sequence[Settlement]) -> None:
        receipts, _ = self.item_leases.swap(settlements, [])
        for one, receipt in zip(settlements, receipts, strict=True):
            if receipt.shard_complete:
                self._send_gather(one.shard)
        if any(receipt.room for receipt in receipts):
            self.publish()

    def keep(self, some: Sequence[Held]) -> None:
        """A step of theirs has ended: what it has given and used is kept."""
        checkpoints = []
        for one in some:
            one.used += 1
            usage = Usage(requests=1, input_tokens=one.used)
            checkpoints.append(
                Checkpoint(
                    claim_request=self.claim_request(one), steps='key "output"\n', usage=usage
                )
            )
        self.item_leases.keep(checkpoints)

    def put_off(self, some: Sequence[Held]) -> None:
        """Put items off; the provider of those with an odd index was down, which counts nothing."""
        some = [one for one in some if one.verdict != "same"]
        self.keep(some)
        self.item_leases.put_off(
            [Deferral(self.claim_request(one), 3600, one.index % 2 == 0) for one in some]
        )

    def claim_request(self, one: Held) -> ClaimRequest:
        return ClaimRequest(batch_id=self.batch_id, index=one.index, token=one.token)

    def release(self, some: Sequence[Held], *, requeue: bool) -> None:
        self.keep(some)
        self.item_leases.release(map(self.claim_request, some))
        for one in some if requeue else ():
            self.publish_again(one)

    def publish_again(self, one: Held) -> None:
        """As a message that goes back to the queue."""
        for shard in self.reader.shards(self.batch_id):
            if shard.number == one.shard:
                publish_tasks(
                    self.app, self.store, self.batch_id, shard, shard.tasks_of([one.index])
                )

    def _send_gather(self, shard: int) -> None:
        gather(self.app, self.batch_id, shard, self.store.route(self.batch_id).needs).apply_async()

    def work_off(self, ends: str = "succeed") -> None:
        """Do whatever the messages say, until none is left; what is held elsewhere is let be."""
        for _ in range(200):
            messages = self.queue()
            if not messages:
                return
            for message in messages:
                self.take(message)
                self.deliver(message, alone=True, ends=ends)
        raise AssertionError("messages without end")

    def come_to_the_end(self, ends: str, rounds: int = 40) -> None:
        """Let all be done that others do when nobody is dead or frozen for ever."""
        model = self.model
        for _ in range(rounds):
            if model.status is None or (model.ended and not self.active()):
                return
            if model.status is BatchStatus.VALIDATING:
                self.producer_falls_silent()
            if model.status is BatchStatus.PAUSED:
                self.settle([one for one in self.held if one.told is None], ends)
                # What has nothing left to do ends without a resume.
                if not model.complete:
                    self.resume(more=1000)
            self.publisher_falls_silent()
            self.retrier_falls_silent()
            self.leases_end(sorted(model.runs))
            self.what_waits_comes_due()
            self.sweep()
            self.work_off(ends)
        raise AssertionError("a batch without end")
