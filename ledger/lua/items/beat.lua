-- beat(KEYS runs, leases; ARGV lease_ms, index, token, index, token, ...) -> {index, ...} no longer ours
-- A lease belongs to one execution: the token, not the task id, which a redelivery repeats.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local lost = {}
for i = 2, #ARGV, 2 do
  local run = redis.call('HGET', KEYS[1], ARGV[i])
  local token = string.match(run or '', '%S+$')
  if token and string.match(token, '^(.-)[?!]?$') == ARGV[i + 1] then
    redis.call('ZADD', KEYS[2], now + tonumber(ARGV[1]), ARGV[i])
  else
    table.insert(lost, ARGV[i])
  end
end
return lost
