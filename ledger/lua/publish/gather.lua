-- gather(KEYS meta, shards, settled, open, events; ARGV shard, events_kept) -> 0: closed | n: so many of its items have no outcome yet | -1: unknown batch or shard
-- uses: ending
-- Closing is counted once. The last shard moves the batch to `finalizing`, also if it is paused. How long an item of the
-- shard took on average decides how many a task of the next ones carries.
local meta = redis.call('HMGET', KEYS[1], 'status', 'total')
local start, stop = string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '', '^(%d+) (%d+) ')
if not meta[2] or not start then
  return -1
end
local expected = stop - start
local settled = redis.call('HGET', KEYS[3], ARGV[1])
if settled == 'closed' then
  return 0
end
if tonumber(settled or 0) < expected then
  return expected - tonumber(settled or 0)
end
local us = tonumber(redis.call('HGET', KEYS[3], ARGV[1] .. '.us') or 0)
redis.call('HSET', KEYS[1], 'item_us', math.floor(us / expected))
redis.call('HSET', KEYS[3], ARGV[1], 'closed')
redis.call('HDEL', KEYS[3], ARGV[1] .. '.us')
redis.call('SREM', KEYS[4], ARGV[1])
redis.call('HINCRBY', KEYS[1], 'closed_items', expected)
finalize_if_done(KEYS[1], KEYS[5], ARGV[2])
return 0
