-- claim(KEYS meta, inputs, outcomes, runs, leases; ARGV index, token, lease_ms, max_attempts)
--   -> {'run', attempt, input, chain} | {'lost', attempt} | {'settled'} | {'held', ms} | {'stopped', status} | {'unknown'}
-- The attempt is counted before user code runs, so that one that kills its process is counted too.
-- 'lost': claimed as well, but it has cost too many processes: the caller settles it as failed.
local meta = redis.call('HMGET', KEYS[1], 'status', 'chain')
if not meta[1] then
  return {'unknown'}
end
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 then
  return {'settled'}
end
if meta[1] ~= 'in_progress' then
  return {'stopped', meta[1]}
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local run = redis.call('HGET', KEYS[4], ARGV[1])
local attempt, token = string.match(run or '0 0 -', '^(%d+) %d+ (%S+)$')
attempt = tonumber(attempt)
-- The same token: this very call, repeated because its answer was lost.
if token ~= ARGV[2] then
  local lease = redis.call('ZSCORE', KEYS[5], ARGV[1])
  if lease and tonumber(lease) > now then
    return {'held', tonumber(lease) - now}
  end
  attempt = attempt + 1
end
local input = redis.call('HGET', KEYS[2], ARGV[1])
if not input then
  return {'unknown'}
end
redis.call('HSET', KEYS[4], ARGV[1], attempt .. ' ' .. now .. ' ' .. ARGV[2])
redis.call('ZADD', KEYS[5], now + tonumber(ARGV[3]), ARGV[1])
if attempt > tonumber(ARGV[4]) then
  return {'lost', attempt - 1}
end
return {'run', attempt, input, meta[2]}
