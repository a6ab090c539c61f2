-- publish_once(KEYS outbox, outbox_due, list; ARGV member, message) -> 1: published | 0: it was before, or the batch is gone
-- The message and the record that it is published are one step, so that no crash comes between and no
-- repetition publishes it again.
redis.call('ZREM', OUTBOX_DUE, member)
if redis.call('HDEL', OUTBOX, 'on_complete') == 0 then
  return 0
end
redis.call('LPUSH', LIST, message)
return 1
