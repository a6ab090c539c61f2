-- shard_published(KEYS meta, shards, settled, open, again; ARGV shard) -> 1 | 0: someone else has recorded it, the batch has ended, or the shard is not cut
local meta = redis.call('HMGET', KEYS[1], 'published', 'ended_at')
-- What has ended has given its keys their end: one that was made now would have none.
if not meta[1] or meta[2] then
  return 0
end
local waiting, items = string.match(redis.call('LINDEX', KEYS[5], 0) or '', '^(%d+) (%d+)$')
if waiting == ARGV[1] then
  redis.call('LPOP', KEYS[5])
  redis.call('HINCRBY', KEYS[1], 'again_items', -items)
elseif meta[1] == ARGV[1] then
  local stop = string.match(redis.call('HGET', KEYS[2], ARGV[1]) or '', '^%d+ (%d+) ')
  -- A server that has gone back does not know this shard any more: it is cut, and published, again.
  if not stop then
    return 0
  end
  redis.call('HSET', KEYS[1], 'published', ARGV[1] + 1, 'next', stop)
else
  return 0
end
redis.call('HDEL', KEYS[1], 'publishing_until')
-- A small shard may have been gathered before its publisher came to say so.
if redis.call('HGET', KEYS[3], ARGV[1]) ~= 'closed' then
  redis.call('SADD', KEYS[4], ARGV[1])
end
return 1
