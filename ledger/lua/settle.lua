-- settle(KEYS meta, outcomes, runs, leases, shards, done, events; ARGV index, token, status, outcome, events_kept, usage field, n, ...)
--   -> 1: recorded | 0: refused, another execution holds or has settled the item
-- First write wins and nothing is ever written over: only the latest claim's token is let through,
-- and it is gone once the outcome is there. `outcome` is a JSON object; the times are put in here.
local run = redis.call('HGET', KEYS[3], ARGV[1])
if not run then
  -- The same outcome: this very call, repeated because its answer was lost.
  local settled = redis.call('HGET', KEYS[2], ARGV[1])
  local ours = string.sub(ARGV[4], 2)
  return settled and string.sub(settled, -#ours) == ours and 1 or 0
end
local attempt, claimed, token = string.match(run, '^(%d+) (%d+) (%S+)$')
if token ~= ARGV[2] then
  return 0
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local times = string.format('{"attempts":%s,"settled_at":%.3f,"duration":%.3f,', attempt, now / 1000, (now - tonumber(claimed)) / 1000)
redis.call('HSET', KEYS[2], ARGV[1], times .. string.sub(ARGV[4], 2))
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
local shard_size = tonumber(redis.call('HGET', KEYS[1], 'shard_size'))
redis.call('HINCRBY', KEYS[5], math.floor(tonumber(ARGV[1]) / shard_size), 1)
redis.call('HINCRBY', KEYS[1], ARGV[3], 1)
for i = 6, #ARGV, 2 do
  redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('RPUSH', KEYS[6], ARGV[1])
redis.call('XADD', KEYS[7], 'MAXLEN', '~', ARGV[5], '*', 'index', ARGV[1], 'status', ARGV[3])
return 1
