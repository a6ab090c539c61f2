-- release(KEYS meta, runs, leases; ARGV index, token, usage fields, usage field, n, ..., index, ...) -> items handed back
-- As if they had not been claimed: who is told to shut down has not cost an item an attempt. What
-- their calls have used is counted in the batch; once, as the token is gone then.
local released = 0
local i = 1
while i <= #ARGV do
  local index, wanted, fields = ARGV[i], ARGV[i + 1], 2 * ARGV[i + 2]
  local run = redis.call('HGET', KEYS[2], index)
  local attempt, claimed, token = string.match(run or '', '^(%d+) (%d+) (%S+)$')
  local held = token == wanted .. '?' or token == wanted .. '!'
  if held or token == wanted then
    if held then
      redis.call('HSET', KEYS[2], index, attempt .. ' ' .. claimed .. ' released')
    elseif attempt == '1' then
      redis.call('HDEL', KEYS[2], index)
    else
      redis.call('HSET', KEYS[2], index, (attempt - 1) .. ' ' .. claimed .. ' released')
    end
    redis.call('ZREM', KEYS[3], index)
    for at = i + 3, i + 2 + fields, 2 do
      redis.call('HINCRBY', KEYS[1], ARGV[at], ARGV[at + 1])
    end
    released = released + 1
  end
  i = i + 3 + fields
end
return released
