-- retry_begin(KEYS active, meta, events, every other key of the batch...; ARGV batch_id, lease_ms, events_kept, token)
--   -> 1: open again | 0: it has not completed
-- The batch goes on, its keys stay until it ends once more. For as long as the lease is renewed it
-- does not end, though each of its items may have an outcome. The token is the caller's: the same call,
-- repeated because its answer was lost, is answered as it was.
local meta = redis.call('HMGET', KEYS[2], 'status', 'expires_at', 'retrier', 'ended_at')
if meta[1] ~= 'completed' then
  return meta[1] and meta[3] == ARGV[4] and not meta[4] and 1 or 0
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[2], 'status', 'in_progress', 'retrying_until', now + ARGV[2], 'retrier', ARGV[4], 'retry_moved', 0)
redis.call('HDEL', KEYS[2], 'ended_at', 'finalizing_at')
-- A window that is over was kept: it does not end what someone asks for afterwards.
if meta[2] and tonumber(meta[2]) <= now then
  redis.call('HDEL', KEYS[2], 'expires_at')
end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', 'status', 'in_progress')
redis.call('ZADD', KEYS[1], now, ARGV[1])
for i = 2, #KEYS do
  redis.call('PERSIST', KEYS[i])
end
return 1
