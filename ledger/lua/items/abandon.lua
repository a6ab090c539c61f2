-- abandon(KEYS runs, leases; ARGV (index, token)...) -> items whose lease was ended
-- Of a process that is about to exit as another item blocks its event loop: they have not cost a
-- process. Their leases end now, so that the sweep finds them.
local now, ended = now_ms(), 0
for index, wanted in records() do
  local run = redis.call('HGET', RUNS, index)
  local attempt, token = string.match(run or '', '^(%d+) %d+ (%S+)$')
  local bare = token and string.match(token, '^(.-)[?!]?$')
  if bare == wanted then
    local started = token == bare and 1 or 0
    redis.call('HSET', RUNS, index, math.max(0, attempt - started) .. ' ' .. now .. ' abandoned')
    redis.call('ZADD', LEASES, now, index)
    ended = ended + 1
  end
end
return ended
