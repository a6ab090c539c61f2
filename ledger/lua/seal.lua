-- seal(KEYS meta, custom_ids, every other key of the batch..., [idempotency_key]; ARGV total, window_ms, field, value, ...) -> 1 | 0: not open any more
-- The fields say how the batch is cut into shards and tasks.
-- From here on every item will get an outcome. The keys stay until the commit gives them an end.
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'validating' then
  -- Only its producer seals a batch: if it is sealed, this is the same call, its answer lost.
  return status and 1 or 0
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], 'status', 'in_progress', 'in_progress_at', now, 'total', ARGV[1],
  'published', 0, 'next', 0, unpack(ARGV, 3))
if tonumber(ARGV[2]) > 0 then
  redis.call('HSET', KEYS[1], 'expires_at', now + ARGV[2])
end
redis.call('DEL', KEYS[2])
redis.call('PERSIST', KEYS[1])
for i = 3, #KEYS do
  redis.call('PERSIST', KEYS[i])
end
return 1
