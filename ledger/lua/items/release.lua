-- release(KEYS runs, leases; ARGV (index, token)...) -> items handed back
-- As if they had not been claimed: a graceful shutdown has not cost an item an attempt.
local released = 0
for index, wanted in records() do
  local run = redis.call('HGET', RUNS, index)
  local attempt, claimed, token = string.match(run or '', '^(%d+) (%d+) (%S+)$')
  local held = token == wanted .. '?' or token == wanted .. '!'
  if held or token == wanted then
    if held then
      redis.call('HSET', RUNS, index, attempt .. ' ' .. claimed .. ' released')
    elseif attempt == '1' then
      redis.call('HDEL', RUNS, index)
    else
      redis.call('HSET', RUNS, index, (attempt - 1) .. ' ' .. claimed .. ' released')
    end
    redis.call('ZREM', LEASES, index)
    released = released + 1
  end
end
return released
