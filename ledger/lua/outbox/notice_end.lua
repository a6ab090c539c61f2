-- notice_end(KEYS notices, index; ARGV member, end, try, wait_ms) -> 1 | 0: someone else has taken it since
-- The try has succeeded, or was the last, where wait_ms is negative; else the next one is due then.
if redis.call('HGET', KEYS[1], ARGV[2] .. '.tries') ~= ARGV[3] then
  return 0
end
if tonumber(ARGV[4]) < 0 then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[1], ARGV[2], ARGV[2] .. '.tries')
else
  local t = redis.call('TIME')
  redis.call('ZADD', KEYS[2], t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[4], ARGV[1])
end
return 1
