-- api_create(KEYS record, batches of the tenant, validating, readers of the file, live batches of the tenant, [idempotency key];
--            ARGV batch_id, ttl_s, most_batches, most_items, items, field, value, ...)
--   -> the id of the batch, which an earlier call may have made | 'batches' | 'items': the tenant has as many by now (0: no bound)
-- The record, its place in the lists and its validation begin in one step: a server that dies leaves all or nothing.
if KEYS[6] then
  local before = redis.call('GET', KEYS[6])
  if before then
    return before
  end
end
local live, most_batches, most_items = redis.call('HVALS', KEYS[5]), tonumber(ARGV[3]), tonumber(ARGV[4])
if most_batches > 0 and #live >= most_batches then
  return 'batches'
end
local items = tonumber(ARGV[5])
for _, n in ipairs(live) do
  items = items + n
end
if most_items > 0 and items > most_items then
  return 'items'
end
if KEYS[6] then
  redis.call('SET', KEYS[6], ARGV[1], 'EX', ARGV[2])
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], 'status', 'validating', 'created_at', now, unpack(ARGV, 6))
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('ZADD', KEYS[3], 0, ARGV[1])
redis.call('SADD', KEYS[4], ARGV[1])
redis.call('HSET', KEYS[5], ARGV[1], ARGV[5])
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[4], KEYS[5]}) do
  if redis.call('TTL', key) < tonumber(ARGV[2]) then
    redis.call('EXPIRE', key, ARGV[2])
  end
end
return ARGV[1]
