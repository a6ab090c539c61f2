-- open(KEYS meta, outbox, active, batches, [idempotency_key]; ARGV batch_id, ttl_s, entries, (field, value)...)
--   -> 1: open, now or before | 0: the key is another's by now
-- The first trace of a batch, all of it in one step: a server that goes back has either all of this or
-- nothing of it. It expires by itself should its producer die before the seal. It is in the indexes from
-- this very step on: a process that finds an entry without a batch takes it out. The first `entries` of
-- the fields are those of its outbox, the others of `meta`.
if IDEMPOTENCY_KEY and redis.call('GET', IDEMPOTENCY_KEY) ~= batch_id then
  return 0
end
if redis.call('EXISTS', META) == 1 then
  return 1
end
local now, of_meta = now_ms(), RECORDS_AT + 2 * entries
redis.call('ZADD', ACTIVE, now, batch_id)
redis.call('ZADD', BATCHES, now, batch_id)
redis.call('HSET', META, 'status', 'validating', 'created_at', now, 'touched_at', now, 'written', 0, unpack(ARGV, of_meta))
redis.call('EXPIRE', META, ttl_s)
if of_meta > RECORDS_AT then
  redis.call('HSET', OUTBOX, unpack(ARGV, RECORDS_AT, of_meta - 1))
  redis.call('EXPIRE', OUTBOX, ttl_s)
end
return 1
