-- retry_begin(KEYS meta, events, every other key of the batch...; ARGV lease_ms, events_kept) -> 1: open again | 0: it has not completed
-- The batch goes on, its keys stay until it ends once more. For as long as the lease is renewed it
-- does not end, though each of its items may have an outcome.
if redis.call('HGET', KEYS[1], 'status') ~= 'completed' then
  return 0
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], 'status', 'in_progress', 'retrying_until', now + ARGV[1])
redis.call('HDEL', KEYS[1], 'ended_at', 'finalizing_at')
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'status', 'in_progress')
for i = 1, #KEYS do
  redis.call('PERSIST', KEYS[i])
end
return 1
