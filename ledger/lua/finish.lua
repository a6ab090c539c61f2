-- finish(KEYS meta, events; ARGV events_kept, ours) -> the status now, or '' if there is no such batch
-- Moves a batch whose shards are all closed to `finalizing`, unless someone is about to have items
-- of it run again; with ours = 1 that is the caller, who has done so.
local meta = redis.call('HMGET', KEYS[1], 'status', 'closed_items', 'total', 'retrying_until')
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if meta[1] ~= 'in_progress' or (meta[4] and ARGV[2] ~= '1' and tonumber(meta[4]) > now) then
  return meta[1] or ''
end
redis.call('HDEL', KEYS[1], 'retrying_until')
if meta[2] ~= meta[3] then
  return meta[1]
end
redis.call('HSET', KEYS[1], 'status', 'finalizing', 'finalizing_at', now)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'status', 'finalizing')
return 'finalizing'
