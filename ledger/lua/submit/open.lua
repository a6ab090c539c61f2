-- open(KEYS meta, notices, active, batches, [idempotency_key]; ARGV batch_id, ttl_s, n, n names and values of notices, field, value, ...)
--   -> 1: open, now or before | 0: the key is another's by now
-- The first trace of a batch, all of it in one step: a server that goes back has either all of this or
-- nothing of it. It expires by itself should its producer die before the seal. It is in the indexes from
-- this very step on: who finds an entry without a batch takes it out.
if KEYS[5] and redis.call('GET', KEYS[5]) ~= ARGV[1] then
  return 0
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 1
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local notices = tonumber(ARGV[3])
redis.call('ZADD', KEYS[3], now, ARGV[1])
redis.call('ZADD', KEYS[4], now, ARGV[1])
redis.call('HSET', KEYS[1], 'status', 'validating', 'created_at', now, 'touched_at', now, 'written', 0,
  unpack(ARGV, 4 + 2 * notices))
redis.call('EXPIRE', KEYS[1], ARGV[2])
if notices > 0 then
  redis.call('HSET', KEYS[2], unpack(ARGV, 4, 3 + 2 * notices))
  redis.call('EXPIRE', KEYS[2], ARGV[2])
end
return 1
