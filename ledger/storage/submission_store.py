"""Transitions of a submission: open -> append* -> seal, or abort; `renew` meanwhile."""

from collections.abc import Mapping, Sequence

from batchord.ledger.core.compression import pack
from batchord.ledger.core.sharding import Cut
from batchord.ledger.errors import BatchAborted, InputsLost, SubmitRefused
from batchord.ledger.storage.keys import page_of
from batchord.ledger.storage.transitions import TransitionStore


class SubmissionStore(TransitionStore):
    """Records batches, from their first key to the seal, and their idempotency keys."""

    def open(
        self,
        batch_id: str,
        fields: Mapping[str, str],
        *,
        key: str | None,
        outbox: Mapping[str, str] | None = None,
    ) -> bool:
        """Open a batch: enter it into the indexes, to expire by itself unless it is sealed.

        `outbox`: its outbox entries, as `storage.outbox` names them. Return False, and write
        nothing, if its idempotency key names another batch by now.
        """
        entries = outbox or {}
        return bool(
            self.transition(
                "open",
                batch_id,
                keys=self._named(key),
                ttl_s=self.settings.unsealed_ttl,
                entries=len(entries),
                records=[*entries.items(), *fields.items()],
            )
        )

    def append(
        self, batch_id: str, start: int, inputs: Sequence[str], custom_ids: Sequence[str] | None
    ) -> int:
        """Record the inputs from index `start` on, which must lie in one page.

        Return the next index. If Redis has lost earlier inputs, record nothing and return the first
        lost index, which is before `start`.

        Raises:
            SubmitRefused: a custom_id came before.
            BatchAborted: the batch is not open any more.
        """
        ids = custom_ids or [""] * len(inputs)
        indexes = range(start, start + len(inputs))
        said = self.transition(
            "append",
            batch_id,
            page=page_of(start),
            ttl_s=self.settings.unsealed_ttl,
            with_ids=int(custom_ids is not None),
            records=zip(indexes, map(pack, inputs), ids, strict=True),
        )
        answer, _, what = str(said).partition(" ")
        match answer:
            case "ok":
                return start + len(inputs)
            case "missing":
                return int(what)
            case "repeated":
                raise SubmitRefused(f"custom_id {what!r} occurs twice: make them unique")
            case _:
                raise BatchAborted(
                    f"batch {batch_id} is gone before it was sealed: its producer was silent for "
                    f"{self.settings.submit_timeout:g} s (BATCHORD_SUBMIT_TIMEOUT), or Redis lost "
                    "its data; submit again"
                )

    def renew(self, batch_id: str, *, total: int, key: str | None) -> bool:
        """Record the producer's heartbeat, and keep the batch's keys; False if it is not open."""
        lasting, ttl = self._lasting(batch_id, total, key), self.settings.unsealed_ttl
        return bool(self.transition("renew", batch_id, more_keys=lasting, ttl_s=ttl))

    def seal(
        self,
        batch_id: str,
        *,
        total: int,
        cut: Cut,
        key: str | None,
        window: float | None = None,
        with_ids: bool = False,
        entries: int = 0,
        digest: str | None = None,
    ) -> int:
        """Seal the batch: from here on each of its items gets exactly one outcome.

        `key`: its idempotency key, which lives as long as the batch. `window`: seconds after which
        items without an outcome expire. `with_ids`, `entries`: whether its items have custom_ids,
        and the number of its outbox entries; seal.lua checks that both are there. `digest`: of its
        inputs, to compare with those that come under the same key later.

        Return `total`, or the index of the first input that Redis has lost: then it is not sealed.

        Raises:
            InputsLost: data is missing that a server does not lose by going back.
            BatchAborted: the batch is not open any more, or its key names another batch.
        """
        keys = self.keys.batch(batch_id)
        pages = [
            name
            for page in range(page_of(total - 1) + 1)
            for name in (keys.inputs(page), keys.ids(page))
        ]
        fields = {**cut.fields(), **({} if digest is None else {"inputs_digest": digest})}
        said = self.transition(
            "seal",
            batch_id,
            # Those of the pages first, each once.
            more_keys=dict.fromkeys([*pages, *self._lasting(batch_id, total, key)]),
            total=total,
            window_ms=0 if window is None else int(window * 1000),
            with_ids=int(with_ids),
            entries=entries,
            named=int(key is not None),
            records=fields.items(),
        )
        answer, _, what = str(said).partition(" ")
        match answer:
            case "ok":
                return total
            case "missing":
                return int(what)
            case "lost":
                raise InputsLost(batch_id, what)
            case "taken":
                raise BatchAborted(f"the key of batch {batch_id} names {what} by now: submit again")
            case _:
                raise BatchAborted(f"batch {batch_id} is gone before it was sealed: submit again")

    def abort(self, batch_id: str, *, silent: float = 0.0) -> bool:
        """Delete a batch that was never sealed, with all its keys; True if it is gone now.

        With `silent`, only if its producer has sent no heartbeat for that many seconds.
        """
        keys = self.keys.batch(batch_id)
        with self.talking():
            written = self.redis.hget(keys.meta, "written")
        every, silent_ms = keys.every(int(written or 0)), int(silent * 1000)
        gone = bool(self.transition("abort", batch_id, more_keys=every, silent_ms=silent_ms))
        if gone:
            self.forget(batch_id)
        return gone

    def forget(self, batch_id: str) -> None:
        """Remove a deleted batch from the indexes."""
        self.transition("forget", batch_id)

    # Idempotency: the key names one batch for as long as that batch is readable.

    def take_key(self, key: str, batch_id: str) -> str:
        """Return the batch that the idempotency key names, which is `batch_id` if it was free."""
        name = self.keys.idempotency(key)
        with self.talking():
            self.redis.set(name, batch_id, nx=True, ex=self.settings.unsealed_ttl)
            return str(self.redis.get(name) or batch_id)

    def free_key(self, key: str, batch_id: str) -> None:
        """Forget the idempotency key if it still names `batch_id`, and that batch is gone."""
        self.transition("free_key", batch_id, keys=self._named(key))

    def _lasting(self, batch_id: str, total: int, key: str | None) -> list[str]:
        """Return all keys that live as long as the batch."""
        return [*self.keys.batch(batch_id).every(total), *self._named(key).values()]

    def _named(self, key: str | None) -> dict[str, str]:
        """Return the key of the idempotency key, if there is an idempotency key."""
        return {} if key is None else {"idempotency_key": self.keys.idempotency(key)}
