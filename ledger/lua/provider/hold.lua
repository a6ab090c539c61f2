-- hold(KEYS lock; ARGV token, lease_ms) -> 1: it is ours for so long | 0: another holds it
-- With lease_ms 0 it is given back.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
