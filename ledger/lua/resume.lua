-- resume(KEYS meta, events; ARGV events_kept) -> the status now, or '' if there is no such batch
-- Messages of items that were refused meanwhile are gone: the caller publishes them again.
local meta = redis.call('HMGET', KEYS[1], 'status', 'closed_items', 'total')
local status = meta[1]
if status == 'paused' then
  status = meta[2] == meta[3] and 'finalizing' or 'in_progress'
  local t = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'status', status)
  -- Someone has acted; whether that helped, the next items tell, as the first ones did.
  redis.call('HDEL', KEYS[1], 'reason', 'alike', 'alike_n')
  if status == 'finalizing' then
    redis.call('HSET', KEYS[1], 'finalizing_at', t[1] * 1000 + math.floor(t[2] / 1000))
  end
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'status', status)
end
return status or ''
