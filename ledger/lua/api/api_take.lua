-- api_take(KEYS validating; ARGV lease_ms) -> the batch that the caller shall validate now, or ''
-- Under a lease: a process that dies meanwhile is followed by another.
local now = now_ms()
local found = redis.call('ZRANGEBYSCORE', VALIDATING, '-inf', now, 'LIMIT', 0, 1)
if not found[1] then
  return ''
end
redis.call('ZADD', VALIDATING, now + lease_ms, found[1])
return found[1]
