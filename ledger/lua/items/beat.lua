-- beat(KEYS runs, leases; ARGV lease_ms, (index, token)...) -> {index, ...} no longer ours
-- A lease belongs to one execution: the token, not the task id, which a redelivery repeats.
local until_ms, lost = now_ms() + lease_ms, {}
for index, ours in records() do
  local run = redis.call('HGET', RUNS, index)
  local token = string.match(run or '', '%S+$')
  if token and string.match(token, '^(.-)[?!]?$') == ours then
    redis.call('ZADD', LEASES, until_ms, index)
  else
    table.insert(lost, index)
  end
end
return lost
