-- come_due(KEYS due; ARGV limit) -> {index, ...} that were put off and may start again
-- As with `lapsed`: they leave the set here, so that they are published once, and what its caller
-- does not come to publish is found as stalled items.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
if #found > 0 then
  redis.call('ZREM', KEYS[1], unpack(found))
end
return found
