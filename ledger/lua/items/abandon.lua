-- abandon(KEYS runs, leases; ARGV index, token, index, ...) -> items whose lease was ended
-- Of a process that is about to exit as another item blocks its event loop: they have not cost a
-- process. Their leases end now, so that the sweep finds them.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local ended = 0
for i = 1, #ARGV, 2 do
  local run = redis.call('HGET', KEYS[1], ARGV[i])
  local attempt, token = string.match(run or '', '^(%d+) %d+ (%S+)$')
  local bare = token and string.match(token, '^(.-)[?!]?$')
  if bare == ARGV[i + 1] then
    local started = token == bare and 1 or 0
    redis.call('HSET', KEYS[1], ARGV[i], math.max(0, attempt - started) .. ' ' .. now .. ' abandoned')
    redis.call('ZADD', KEYS[2], now, ARGV[i])
    ended = ended + 1
  end
end
return ended
