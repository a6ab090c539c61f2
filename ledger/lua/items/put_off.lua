-- put_off(KEYS runs, leases, kept, due; ARGV index, token, wait_ms, counts, index, ...) -> items put off
-- An attempt has ended without an outcome: the item gives its lease back and may be claimed again
-- once its time has come. That start has not cost a process, so it is counted as ended; with `counts` 0
-- it is not counted at all, as its provider was down.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local put_off = 0
for i = 1, #ARGV, 4 do
  local index = ARGV[i]
  local attempt, claimed, token = string.match(redis.call('HGET', KEYS[1], index) or '', '^(%d+) (%d+) (%S+)$')
  if token == ARGV[i + 1] then
    local counts = tonumber(ARGV[i + 3])
    redis.call('HSET', KEYS[1], index, (attempt - 1 + counts) .. ' ' .. claimed .. ' waits')
    redis.call('ZREM', KEYS[2], index)
    if counts == 1 then
      redis.call('HINCRBY', KEYS[3], index .. '.ended', 1)
    end
    redis.call('ZADD', KEYS[4], now + ARGV[i + 2], index)
    put_off = put_off + 1
  end
end
return put_off
