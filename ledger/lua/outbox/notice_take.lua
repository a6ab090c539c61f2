-- notice_take(KEYS notices, index; ARGV member, end, hold_ms, tries) -> {try, meta as it was, url or ''}, try 0: over, and forgotten | {}: not due
-- The try is counted before it is made: a sender that dies has spent it, and there are never more than
-- `tries`. Until the hold is over nobody else takes it.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local due = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not due or tonumber(due) > now then
  return {}
end
local meta = redis.call('HGET', KEYS[1], ARGV[2])
local tried = tonumber(redis.call('HGET', KEYS[1], ARGV[2] .. '.tries') or 0)
if not meta or tried >= tonumber(ARGV[4]) then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[1], ARGV[2], ARGV[2] .. '.tries')
  return meta and {0, meta, ''} or {}
end
redis.call('HSET', KEYS[1], ARGV[2] .. '.tries', tried + 1)
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[1])
return {tried + 1, meta, redis.call('HGET', KEYS[1], 'webhook') or ''}
