-- retry_begin(KEYS active, meta, events, all...; ARGV batch_id, lease_ms, events_kept, token)
--   -> 1: open again | 0: it has not completed
-- uses: ending
-- The batch goes on, its keys (`all`) stay until it ends once more. For as long as the lease is renewed it
-- does not end, though each of its items may have an outcome. The token is the caller's: the same call,
-- repeated because its answer was lost, is answered as it was.
local meta = fields(META, 'status', 'expires_at', 'retrier', 'ended_at')
if meta.status ~= 'completed' then
  return meta.status and meta.retrier == token and not meta.ended_at and 1 or 0
end
local now = now_ms()
redis.call('HSET', META, 'status', 'in_progress', 'retrying_until', now + lease_ms, 'retrier', token, 'retry_moved', 0)
redis.call('HDEL', META, 'ended_at', 'finalizing_at')
-- A window that is over was kept: it does not end what someone asks for afterwards.
if meta.expires_at and tonumber(meta.expires_at) <= now then
  redis.call('HDEL', META, 'expires_at')
end
wake(EVENTS, events_kept, 'status', 'in_progress')
redis.call('ZADD', ACTIVE, now, batch_id)
for i = ALL_AT, #KEYS do
  redis.call('PERSIST', KEYS[i])
end
return 1
