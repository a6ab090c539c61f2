-- shard_published(KEYS meta, shards, settled, open, again; ARGV shard) -> 1 | 0: another process has recorded it, the batch has ended, or the shard is not cut
local meta = fields(META, 'published', 'ended_at')
-- What has ended has given its keys their end: one that was made now would have none.
if not meta.published or meta.ended_at then
  return 0
end
local waiting, items = string.match(redis.call('LINDEX', AGAIN, 0) or '', '^(%d+) (%d+)$')
if waiting == shard then
  redis.call('LPOP', AGAIN)
  redis.call('HINCRBY', META, 'again_items', -items)
elseif meta.published == shard then
  local stop = string.match(redis.call('HGET', SHARDS, shard) or '', '^%d+ (%d+) ')
  -- A server that has gone back does not know this shard any more: it is cut, and published, again.
  if not stop then
    return 0
  end
  redis.call('HSET', META, 'published', shard + 1, 'next', stop)
else
  return 0
end
redis.call('HDEL', META, 'publishing_until')
-- A small shard may have been gathered before its publisher came to say so.
if redis.call('HGET', SETTLED, shard) ~= 'closed' then
  redis.call('SADD', OPEN, shard)
end
return 1
