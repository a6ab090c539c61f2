-- expire(KEYS meta, events; ARGV events_kept) -> 1: its completion window is over, and it ends | 0
-- uses: ending
-- A batch with nothing left to do does not expire. As with cancel: what has no outcome gets one page by page (end_page).
local meta = redis.call('HMGET', KEYS[1], 'status', 'expires_at')
local now = ending_now()
if (meta[1] ~= 'in_progress' and meta[1] ~= 'paused') or not meta[2] or tonumber(meta[2]) > now or nothing_left(KEYS[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'status', 'finalizing', 'ends_as', 'expired', 'finalizing_at', now)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'status', 'finalizing')
return 1
