-- lapsed(KEYS leases; ARGV limit) -> {index, ...} whose lease ended without an outcome
-- They leave the leases here, so that they are published again once; their count of attempts stays
-- in `runs`. Should the caller die before it publishes, they are found as stalled items.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
if #found > 0 then
  redis.call('ZREM', KEYS[1], unpack(found))
end
return found
