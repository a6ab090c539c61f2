"""The key schema: every key that the ledger keeps in Redis.

`NS` is `Settings.namespace`, `{ID}` the batch id in braces (the cluster hash tag, so that all
keys of a batch are in one slot), `P` a page: the items from `P * PAGE_SIZE` on.

Of one batch:
    NS:{ID}:meta        hash    `format` of all keys of the batch (without: 1), status, chain,
                                `chain_version`, total, counts, timestamps, how far it is
                                published, and through which `lane`, or `apart`, in the queue of
                                what needs the same; `spec`, a chain that travels as data;
                                with an idempotency key, the `inputs_digest` of its inputs
    NS:{ID}:in:P        hash    index -> input, JSON text as `core.compression` has it
    NS:{ID}:id:P        hash    index -> custom_id, where the caller gave them
    NS:{ID}:out:P       hash    index -> outcome, likewise; written once
    NS:{ID}:runs        hash    index -> "attempt claimed_ms token" of items claimed, not settled;
                                the token of what is held and not started ends in "?" or "!"
    NS:{ID}:leases      zset    index, scored by when its lease ends (ms); running items only
    NS:{ID}:due         zset    index of an item whose attempt ended without an outcome, scored by
                                when the next one may start (ms)
    NS:{ID}:kept        hash    index -> what steps of such an item, or of one whose worker died,
                                have given (`checkpoints`); "INDEX.ended" -> how many of its starts
                                ended without an outcome; "INDEX.usage" -> what they have used
    NS:{ID}:firsts      hash    in a batch with dedupe: SHA1 of an input -> the first item that was
                                claimed with it; "INDEX.same" -> that item, for one that waits for
                                its outcome; "INDEX.wait" -> the last that waits for it, and
                                "INDEX.next" -> the one before it
    NS:{ID}:shards      hash    shard -> "start stop items_per_task", as it was cut
    NS:{ID}:settled     hash    shard -> how many of its items are settled, or "closed";
                                "SHARD.us" -> for how many microseconds its items ran together;
                                "SHARD.dealt": it is back from the provider
    NS:{ID}:open        set     shards that are published and not closed
    NS:{ID}:again       list    "shard items": shards to be published again, and the number of their
                                failed items that are to run again
    NS:{ID}:outbox      hash    on_complete -> signature, as JSON, until it is published;
                                webhook -> URL, webhook.secret -> the variable of its secret;
                                N -> `meta` as it was at the batch's Nth end, and
                                "N.tries" -> how often that was tried to be told, until it is
    NS:{ID}:hist:P      hash    index -> JSON array of the outcomes that retries have replaced
    NS:{ID}:audit       list    JSON of pauses, resumes, cancellations and retries: user, time
    NS:{ID}:done        list    indexes in the order in which they were settled
    NS:{ID}:failed      hash    index of an item whose outcome is `failed` -> its error's code
    NS:{ID}:events      stream  wake-up calls (`settled`, `status`), trimmed to about 1,000
    NS:{ID}:parts       hash    in provider mode: part -> "start stop first_shard next_shard
                                begun_ms"; "PART.file", "PART.batch": the provider's;
                                "PART.uploading", "PART.creating": who was about to; "PART.closed"
    NS:{ID}:poller     string  the worker that talks with the provider about it now; expires
    NS:{ID}:looked      string  someone has looked at the provider's batches just now; expires
    NS:{ID}:stats       hash    what `batch_stats` draws: failures by code, latency, throughput;
                                about 300 fields at most, whatever the batch's size
    NS:{ID}:custom-ids  set     custom_ids seen while submitting, to refuse repeats; gone at seal

Across batches:
    NS:batches          zset    batch id, scored by its creation (ms)
    NS:outbox-due       zset    "ID on_complete", "ID N": what ends of batches owe to others, scored
                                by when it is due (ms)
    NS:active           zset    batch id not yet committed, scored by its creation (ms)
    NS:key:SHA256       string  idempotency key (hashed) -> batch id
    NS:cache:DIGEST     string  an output, by chain, version, settings and input (`cached_outputs`);
                                expires
    NS:chains           hash    chain name -> ChainRecord, as the workers announced it
    NS:tasks            set     tasks of users that the workers announced: what `on_complete` may
                                call without a queue of its own
    NS:used             hash    chain name -> "batches items input_tokens output_tokens priced_items
                                cost_nanos", summed up over its completed batches (commit.lua)
    NS:totals           hash    "NAME CHAIN" -> what its batches had come to when they ended, of the
                                numbers of `chain_totals`; and how many "batches.STATUS" there were
    NS:repairs          hash    why -> how many tasks the sweeps have sent again so far
    NS:fleet            hash    "host:pid" of a worker, or of a child that it forked -> "heard_ms
                                JSON", its `fleet.Beat`; expires
    NS:purged           list    JSON of batches that were purged: user, time; expires
    NS:apart            hash    queue of messages that were put apart -> "used_ms JSON", what they
                                need of a worker (`needs.Needs`); expires
    NS:sweep:FORMAT     string  the worker that sweeps now; expires
    NS:limit:KEY        hash    of a rate limit: `requests` and `tokens`, until when all that was
                                reserved has been earned; `cool`, until when nobody calls (us)
    NS:limit:KEY:places hash    process -> "calls_in_flight believed_until hungry_until" (us); both
                                expire
    NS:health:NAME      hash    of a circuit breaker (`circuit_breaker`), or of what the items of a
                                batch meet (`fault_attribution`): `since`, `last`, `streak`, `who`:
                                the failures in a row; `begun` and `done`, the last success;
                                `until`, `level` and `probe`, while it is open (us); expires

Of `batchord serve`, which keeps here all but the bytes of files (`api_files`, `api_batches`):
    NS:api:file:FILE       hash  an uploaded file: tenant, filename, bytes, lines, ...; expires
    NS:api:files:TENANT    zset  its files, scored by their creation (ms); expires
    NS:api:bytes           zset  file id -> when its bytes may be deleted from the file store (ms)
    NS:api:readers:FILE    set   batches that read these bytes; expires
    NS:api:batch:ID        hash  a batch as it was asked for: tenant, endpoint, ..., and what became
                                 of its validation; expires
    NS:api:batches:TENANT  zset  its batches, scored by their creation (ms); expires
    NS:api:live:TENANT     hash  batch id -> its requests, of batches that have not ended, as far as
                                 is known; expires
    NS:api:validating      zset  batches to be validated, scored by when the lease of the process
                                 that does so ends (ms)
    NS:api:key:SHA256      string  an Idempotency-Key of a tenant (hashed) -> batch id; expires
"""

import hashlib
from dataclasses import dataclass

from batchord.chains.usage import Usage
from batchord.ledger.needs import FORMAT

#: Items per page: bounds every hash and every reply.
PAGE_SIZE = 1000

#: What is summed up of a chain's batches, by its name in `meta` and in `stats` (`chain_totals`).
SUMMED_IN_META = (
    *("succeeded", "failed", "cancelled", "expired"),
    *(f"usage.{name}" for name in Usage.model_fields),
)
SUMMED_IN_STATS = ("restarts", "retried")

#: Events kept per batch; they only wake readers, the truth is in `out` and `done`.
EVENTS_KEPT = 1000


class _Key:
    """A key by its last part, of the object that has a namespace."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, of: "BatchKeys | Keys", _: object) -> str:
        return of.key(self._name)


@dataclass(frozen=True)
class BatchKeys:
    """The keys of one batch."""

    namespace: str
    batch_id: str

    meta = _Key("meta")
    runs = _Key("runs")
    leases = _Key("leases")
    due = _Key("due")
    kept = _Key("kept")
    firsts = _Key("firsts")
    shards = _Key("shards")
    settled = _Key("settled")
    open = _Key("open")
    again = _Key("again")
    outbox = _Key("outbox")
    done = _Key("done")
    events = _Key("events")
    failed = _Key("failed")
    parts = _Key("parts")
    poller = _Key("poller")
    looked = _Key("looked")
    stats = _Key("stats")
    custom_ids = _Key("custom-ids")
    audit = _Key("audit")

    def key(self, name: str) -> str:
        return f"{self.namespace}:{{{self.batch_id}}}:{name}"

    def inputs(self, page: int) -> str:
        return self.key(f"in:{page}")

    def ids(self, page: int) -> str:
        return self.key(f"id:{page}")

    def outcomes(self, page: int) -> str:
        return self.key(f"out:{page}")

    def history(self, page: int) -> str:
        return self.key(f"hist:{page}")

    def every(self, total: int) -> list[str]:
        """All keys that a batch of `total` items may have."""
        kinds = (self.inputs, self.ids, self.outcomes, self.history)
        pages = range((total + PAGE_SIZE - 1) // PAGE_SIZE)
        return [
            self.meta,
            self.runs,
            self.leases,
            self.due,
            self.kept,
            self.firsts,
            self.shards,
            self.settled,
            self.open,
            self.again,
            self.outbox,
            self.done,
            self.failed,
            self.events,
            self.stats,
            self.custom_ids,
            self.parts,
            self.audit,
            *(key(page) for page in pages for key in kinds),
        ]


@dataclass(frozen=True)
class Keys:
    """The keys across batches."""

    namespace: str

    batches = _Key("batches")
    active = _Key("active")
    outbox_due = _Key("outbox-due")
    chains = _Key("chains")
    tasks = _Key("tasks")
    used = _Key("used")
    totals = _Key("totals")
    repairs = _Key("repairs")
    fleet = _Key("fleet")
    apart = _Key("apart")
    purged = _Key("purged")
    #: For each format: a worker that leaves a batch alone must not keep others from repairing it.
    sweep = _Key(f"sweep:{FORMAT}")

    def key(self, name: str) -> str:
        return f"{self.namespace}:{name}"

    def batch(self, batch_id: str) -> BatchKeys:
        return BatchKeys(self.namespace, batch_id)

    def cached(self, digest: str) -> str:
        return f"{self.namespace}:cache:{digest}"

    def rates(self, limit: str) -> str:
        return f"{self.namespace}:limit:{limit}"

    def places(self, limit: str) -> str:
        return f"{self.namespace}:limit:{limit}:places"

    def health(self, name: str) -> str:
        return f"{self.namespace}:health:{name}"

    def api(self, *parts: str) -> str:
        """Return a key of `batchord serve`; the parts are its own words, ids or tenants' names."""
        return ":".join((self.namespace, "api", *parts))

    def day_budget(self, tenant: str) -> str:
        return self.api("day-budget", tenant)

    def api_idempotency(self, tenant: str, key: str) -> str:
        # Hashed, as below; a tenant's name has no line break.
        return self.api("key", hashlib.sha256(f"{tenant}\n{key}".encode()).hexdigest())

    def idempotency(self, key: str) -> str:
        # Hashed: a caller's key may be long, and may say more than a key name should.
        return f"{self.namespace}:key:{hashlib.sha256(key.encode()).hexdigest()}"


def page_of(index: int) -> int:
    """Return the page that holds an item."""
    return index // PAGE_SIZE
