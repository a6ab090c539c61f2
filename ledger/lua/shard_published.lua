-- shard_published(KEYS meta, shards, settled, open, again; ARGV shard) -> 1 | 0: someone else has recorded it
if redis.call('LINDEX', KEYS[5], 0) == ARGV[1] then
  redis.call('LPOP', KEYS[5])
  local start, stop = string.match(redis.call('HGET', KEYS[2], ARGV[1]), '^(%d+) (%d+) ')
  local open = stop - start - tonumber(redis.call('HGET', KEYS[3], ARGV[1]))
  redis.call('HINCRBY', KEYS[1], 'again_items', -open)
  redis.call('HDEL', KEYS[1], 'publishing_until')
  if redis.call('HGET', KEYS[3], ARGV[1]) ~= 'closed' then
    redis.call('SADD', KEYS[4], ARGV[1])
  end
  return 1
end
local published = redis.call('HGET', KEYS[1], 'published')
if not published or tonumber(published) ~= tonumber(ARGV[1]) then
  return 0
end
local stop = string.match(redis.call('HGET', KEYS[2], ARGV[1]), '^%d+ (%d+) ')
redis.call('HSET', KEYS[1], 'published', tonumber(ARGV[1]) + 1, 'next', stop)
redis.call('HDEL', KEYS[1], 'publishing_until')
-- A small shard may have been gathered before its publisher came to say so.
if redis.call('HGET', KEYS[3], ARGV[1]) ~= 'closed' then
  redis.call('SADD', KEYS[4], ARGV[1])
end
return 1
