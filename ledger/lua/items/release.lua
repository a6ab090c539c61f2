-- release(KEYS runs, leases; ARGV index, token, index, ...) -> items handed back
-- As if they had not been claimed: who is told to shut down has not cost an item an attempt.
local released = 0
for i = 1, #ARGV, 2 do
  local index, wanted = ARGV[i], ARGV[i + 1]
  local run = redis.call('HGET', KEYS[1], index)
  local attempt, claimed, token = string.match(run or '', '^(%d+) (%d+) (%S+)$')
  local held = token == wanted .. '?' or token == wanted .. '!'
  if held or token == wanted then
    if held then
      redis.call('HSET', KEYS[1], index, attempt .. ' ' .. claimed .. ' released')
    elseif attempt == '1' then
      redis.call('HDEL', KEYS[1], index)
    else
      redis.call('HSET', KEYS[1], index, (attempt - 1) .. ' ' .. claimed .. ' released')
    end
    redis.call('ZREM', KEYS[2], index)
    released = released + 1
  end
end
return released
