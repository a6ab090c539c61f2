-- heartbeat(KEYS workers or fleet; ARGV name, what it says, ttl_ms) -> processes that are known
-- What was not heard of for `ttl_ms` is forgotten; the key itself expires after as long.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], now .. ' ' .. ARGV[2])
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if now - string.match(all[i + 1], '^%d+') > tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[1], all[i])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return redis.call('HLEN', KEYS[1])
