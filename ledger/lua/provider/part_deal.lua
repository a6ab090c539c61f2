-- part_deal(KEYS meta, shards, settled, again, open; ARGV shard) -> 1: each of its items has an outcome | 0: the others are to be run live
-- What has come back from the provider is not away any more. What is missing is queued to be
-- published, once, as if it had failed and were to run again.
local start, stop = string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '', '^(%d+) (%d+) ')
if not start then
  return 0
end
-- What has ended has given its keys their end: one that was made now would have none.
local meta = redis.call('HMGET', KEYS[1], 'status', 'ended_at')
if not meta[1] or meta[2] then
  return 1
end
local settled = redis.call('HGET', KEYS[3], ARGV[1])
local missing = settled == 'closed' and 0 or stop - start - tonumber(settled or 0)
if redis.call('HSETNX', KEYS[3], ARGV[1] .. '.dealt', 1) == 1 then
  redis.call('HINCRBY', KEYS[1], 'away', start - stop)
  if missing > 0 then
    redis.call('HINCRBY', KEYS[1], 'again_items', missing)
    redis.call('RPUSH', KEYS[4], ARGV[1] .. ' ' .. missing)
  end
end
-- Until it is gathered; the sweep sees to that, should the caller die.
if missing == 0 and settled ~= 'closed' then
  redis.call('SADD', KEYS[5], ARGV[1])
end
return missing == 0 and 1 or 0
