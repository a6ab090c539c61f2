-- outbox_end(KEYS outbox, outbox_due; ARGV member, nth, try, wait_ms) -> 1 | 0: another process has taken it since
-- The try has succeeded, or was the last, where wait_ms is negative; else the next one is due then.
if redis.call('HGET', OUTBOX, nth .. '.tries') ~= try then
  return 0
end
if tonumber(wait_ms) < 0 then
  redis.call('ZREM', OUTBOX_DUE, member)
  redis.call('HDEL', OUTBOX, nth, nth .. '.tries')
else
  redis.call('ZADD', OUTBOX_DUE, now_ms() + wait_ms, member)
end
return 1
