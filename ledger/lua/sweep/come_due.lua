-- come_due(KEYS due; ARGV limit) -> {index, ...} that were put off and may start again
-- As with `lapsed`: they leave the set here, so that they are published once, and what its caller
-- does not come to publish is found as stalled items.
local found = redis.call('ZRANGEBYSCORE', DUE, '-inf', now_ms(), 'LIMIT', 0, limit)
if #found > 0 then
  redis.call('ZREM', DUE, unpack(found))
end
return found
