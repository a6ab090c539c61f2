-- api_take(KEYS validating; ARGV lease_ms) -> the batch that the caller shall validate now, or ''
-- Under a lease: whoever dies meanwhile is followed by another process.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 1)
if not found[1] then
  return ''
end
redis.call('ZADD', KEYS[1], now + ARGV[1], found[1])
return found[1]
