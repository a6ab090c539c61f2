-- api_create(KEYS record, batches of the tenant, validating, readers of the file, [idempotency key];
--            ARGV batch_id, ttl_s, field, value, ...) -> the id of the batch, which an earlier call may have made
-- The record, its place in the lists and its validation begin in one step: a server that dies leaves all or nothing.
if KEYS[5] then
  local before = redis.call('GET', KEYS[5])
  if before then
    return before
  end
  redis.call('SET', KEYS[5], ARGV[1], 'EX', ARGV[2])
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], 'status', 'validating', 'created_at', now, unpack(ARGV, 3))
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('ZADD', KEYS[3], 0, ARGV[1])
redis.call('SADD', KEYS[4], ARGV[1])
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[4]}) do
  if redis.call('TTL', key) < tonumber(ARGV[2]) then
    redis.call('EXPIRE', key, ARGV[2])
  end
end
return ARGV[1]
