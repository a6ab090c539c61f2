-- publish_once(KEYS notices, index, list; ARGV member, message) -> 1: published | 0: it was before, or the batch is gone
-- The message and the record that it is published are one step, so that no crash comes between and no
-- repetition publishes it again.
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HDEL', KEYS[1], 'on_complete') == 0 then
  return 0
end
redis.call('LPUSH', KEYS[3], ARGV[2])
return 1
