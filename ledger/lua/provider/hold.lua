-- hold(KEYS poller; ARGV token, lease_ms) -> 1: it is ours for lease_ms | 0: another holds it
-- With lease_ms 0 it is given back.
local holder = redis.call('GET', POLLER)
if holder and holder ~= token then
  return 0
end
if lease_ms == '0' then
  redis.call('DEL', POLLER)
else
  redis.call('SET', POLLER, token, 'PX', lease_ms)
end
return 1
