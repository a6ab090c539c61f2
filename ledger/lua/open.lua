-- open(KEYS meta, active, batches, [idempotency_key]; ARGV batch_id, ttl_s, field, value, ...) -> 1: open | 0: the key is another's by now
-- The first trace of a batch. It expires by itself should its producer die before the seal. It is in
-- the indexes from this very step on: who finds an entry without a batch takes it out.
if KEYS[4] and redis.call('GET', KEYS[4]) ~= ARGV[1] then
  return 0
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('ZADD', KEYS[3], now, ARGV[1])
redis.call('HSET', KEYS[1], 'status', 'validating', 'created_at', now, 'touched_at', now, unpack(ARGV, 3))
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
