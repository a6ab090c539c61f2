-- next_shard(KEYS meta; ARGV lease_ms) -> shard to publish now | -1: none
-- One publisher at a time, under a lease: if it dies, the next caller after the lease goes on.
local meta = redis.call('HMGET', KEYS[1], 'status', 'total', 'shard_size', 'published', 'closed', 'publishing_until', 'window')
if meta[1] ~= 'in_progress' then
  return -1
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if meta[6] and tonumber(meta[6]) > now then
  return -1
end
local published, closed = tonumber(meta[4]), tonumber(meta[5])
local shards = math.ceil(tonumber(meta[2]) / tonumber(meta[3]))
if published >= shards or published - closed >= tonumber(meta[7]) then
  return -1
end
redis.call('HSET', KEYS[1], 'publishing_until', now + tonumber(ARGV[1]))
return published
