-- lapsed(KEYS leases; ARGV limit) -> {index, ...} whose lease ended without an outcome
-- They leave the leases here, so that they are published again once; their count of attempts stays
-- in `runs`. Should the caller die before it publishes, they are found as stalled items.
local found = redis.call('ZRANGEBYSCORE', LEASES, '-inf', now_ms(), 'LIMIT', 0, limit)
if #found > 0 then
  redis.call('ZREM', LEASES, unpack(found))
end
return found
