-- gather(KEYS meta, shards, open; ARGV shard) -> 0: closed | n: so many of its items have no outcome yet | -1: unknown batch
-- Closing is counted once. The last shard moves the batch to `finalizing`.
local meta = redis.call('HMGET', KEYS[1], 'status', 'total', 'shard_size', 'closed')
if not meta[4] then
  return -1
end
local total, size, shard = tonumber(meta[2]), tonumber(meta[3]), tonumber(ARGV[1])
local expected = math.min(size, total - shard * size)
local settled = redis.call('HGET', KEYS[2], ARGV[1])
if settled == 'closed' then
  return 0
end
if tonumber(settled or 0) < expected then
  return expected - tonumber(settled or 0)
end
redis.call('HSET', KEYS[2], ARGV[1], 'closed')
redis.call('SREM', KEYS[3], ARGV[1])
local closed = redis.call('HINCRBY', KEYS[1], 'closed', 1)
if closed == math.ceil(total / size) and meta[1] == 'in_progress' then
  local t = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'status', 'finalizing', 'finalizing_at', t[1] * 1000 + math.floor(t[2] / 1000))
end
return 0
