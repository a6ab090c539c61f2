-- outbox_take(KEYS outbox, outbox_due; ARGV member, nth, hold_ms, tries) -> {try, meta as it was, url or '', variable of its secret or ''}, try 0: over, and forgotten | {}: not due
-- The try is counted before it is made: a sender that dies has spent it, and there are never more than
-- `tries`. Until the hold is over no other process takes it.
local now = now_ms()
local due = redis.call('ZSCORE', OUTBOX_DUE, member)
if not due or tonumber(due) > now then
  return {}
end
local meta = redis.call('HGET', OUTBOX, nth)
local tried = tonumber(redis.call('HGET', OUTBOX, nth .. '.tries') or 0)
if not meta or tried >= tonumber(tries) then
  redis.call('ZREM', OUTBOX_DUE, member)
  redis.call('HDEL', OUTBOX, nth, nth .. '.tries')
  return meta and {0, meta, '', ''} or {}
end
redis.call('HSET', OUTBOX, nth .. '.tries', tried + 1)
redis.call('ZADD', OUTBOX_DUE, now + hold_ms, member)
return {tried + 1, meta, redis.call('HGET', OUTBOX, 'webhook') or '', redis.call('HGET', OUTBOX, 'webhook.secret') or ''}
