-- part_deal(KEYS meta, shards, settled, again, open; ARGV shard) -> 1: each of its items has an outcome | 0: the others are to be run live
-- What has come back from the provider is not away any more. What is missing is queued to be
-- published, once, as if it had failed and were to run again.
local start, stop = string.match(redis.call('HGET', SHARDS, shard) or '', '^(%d+) (%d+) ')
if not start then
  return 0
end
-- What has ended has given its keys their end: one that was made now would have none.
local meta = fields(META, 'status', 'ended_at')
if not meta.status or meta.ended_at then
  return 1
end
local settled = redis.call('HGET', SETTLED, shard)
local missing = settled == 'closed' and 0 or stop - start - tonumber(settled or 0)
if redis.call('HSETNX', SETTLED, shard .. '.dealt', 1) == 1 then
  redis.call('HINCRBY', META, 'away', start - stop)
  if missing > 0 then
    redis.call('HINCRBY', META, 'again_items', missing)
    redis.call('RPUSH', AGAIN, shard .. ' ' .. missing)
  end
end
-- Until it is gathered; the sweep sees to that, should the caller die.
if missing == 0 and settled ~= 'closed' then
  redis.call('SADD', OPEN, shard)
end
return missing == 0 and 1 or 0
