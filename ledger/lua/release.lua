-- release(KEYS runs, leases; ARGV index, token, index, token, ...) -> items handed back
-- As if they had not been claimed: who is told to shut down has not cost an item an attempt.
local released = 0
for i = 1, #ARGV, 2 do
  local run = redis.call('HGET', KEYS[1], ARGV[i])
  local attempt, claimed, token = string.match(run or '', '^(%d+) (%d+) (%S+)$')
  if token == ARGV[i + 1] .. '?' or token == ARGV[i + 1] .. '!' then
    redis.call('HSET', KEYS[1], ARGV[i], attempt .. ' ' .. claimed .. ' released')
    redis.call('ZREM', KEYS[2], ARGV[i])
    released = released + 1
  elseif token == ARGV[i + 1] then
    if attempt == '1' then
      redis.call('HDEL', KEYS[1], ARGV[i])
    else
      redis.call('HSET', KEYS[1], ARGV[i], (attempt - 1) .. ' ' .. claimed .. ' released')
    end
    redis.call('ZREM', KEYS[2], ARGV[i])
    released = released + 1
  end
end
return released
