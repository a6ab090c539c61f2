-- heartbeat(KEYS heard; ARGV process, told, ttl_ms) -> processes that are known
-- `told`: what the process says of itself, behind the time.
-- What was not heard of for `ttl_ms` is forgotten; the key itself expires after as long.
local now = now_ms()
redis.call('HSET', HEARD, process, now .. ' ' .. told)
local all = redis.call('HGETALL', HEARD)
for i = 1, #all, 2 do
  if now - string.match(all[i + 1], '^%d+') > tonumber(ttl_ms) then
    redis.call('HDEL', HEARD, all[i])
  end
end
redis.call('PEXPIRE', HEARD, ttl_ms)
return redis.call('HLEN', HEARD)
