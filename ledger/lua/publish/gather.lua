-- gather(KEYS meta, shards, settled, open, events; ARGV shard, events_kept) -> 0: closed | n: as many of its items have no outcome yet | -1: unknown batch or shard
-- uses: ending
-- Closing is counted once. The last shard moves the batch to `finalizing`, also if it is paused. How long
-- an item of the shard took on average decides how many a task of the next ones carries.
local total = redis.call('HGET', META, 'total')
local start, stop = string.match(redis.call('HGET', SHARDS, shard) or '', '^(%d+) (%d+) ')
if not total or not start then
  return -1
end
local expected = stop - start
local settled = redis.call('HGET', SETTLED, shard)
if settled == 'closed' then
  return 0
end
if tonumber(settled or 0) < expected then
  return expected - tonumber(settled or 0)
end
local us = tonumber(redis.call('HGET', SETTLED, shard .. '.us') or 0)
redis.call('HSET', META, 'item_us', math.floor(us / expected))
redis.call('HSET', SETTLED, shard, 'closed')
redis.call('HDEL', SETTLED, shard .. '.us')
redis.call('SREM', OPEN, shard)
redis.call('HINCRBY', META, 'closed_items', expected)
finalize_if_done(META, EVENTS, events_kept)
return 0
