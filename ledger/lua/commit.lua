-- commit(KEYS meta, events, every other key of the batch...; ARGV ttl_s, events_kept) -> 1: committed now | 0: not finalizing
-- The batch ends here, once. Keys get their end in the same step, so none can be left without.
if redis.call('HGET', KEYS[1], 'status') ~= 'finalizing' then
  return 0
end
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], 'status', 'completed', 'ended_at', t[1] * 1000 + math.floor(t[2] / 1000))
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'status', 'completed')
for i = 1, #KEYS do
  redis.call('EXPIRE', KEYS[i], ARGV[1])
end
return 1
