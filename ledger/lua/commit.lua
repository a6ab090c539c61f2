-- commit(KEYS active, meta, events, every other key of the batch...; ARGV batch_id, ttl_s, events_kept) -> 1: committed now | 0: not at its end | -1: ended before
-- The batch ends here, once, when each of its items has an outcome. Keys get their end in the same
-- step, so none can be left without; and it leaves the index in the same step, so that it cannot be
-- taken out of it after someone has opened it again.
local meta = redis.call('HMGET', KEYS[2], 'status', 'ends_as', 'total', 'succeeded', 'failed', 'cancelled', 'expired')
if meta[1] ~= 'finalizing' and meta[1] ~= 'cancelling' then
  if meta[1] == 'in_progress' or meta[1] == 'paused' or meta[1] == 'validating' then
    return 0
  end
  redis.call('ZREM', KEYS[1], ARGV[1])
  return -1
end
local done = 0
for i = 4, 7 do
  done = done + tonumber(meta[i] or 0)
end
if done < tonumber(meta[3]) then
  return 0
end
local status = meta[2] or 'completed'
local t = redis.call('TIME')
redis.call('HSET', KEYS[2], 'status', status, 'ended_at', t[1] * 1000 + math.floor(t[2] / 1000))
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', 'status', status)
redis.call('ZREM', KEYS[1], ARGV[1])
for i = 2, #KEYS do
  redis.call('EXPIRE', KEYS[i], ARGV[2])
end
return 1
