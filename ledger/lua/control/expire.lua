-- expire(KEYS meta, events; ARGV events_kept) -> 1: its completion window is over, and it ends | 0
-- uses: ending
-- A batch with nothing left to do does not expire. As with cancel: what has no outcome gets one page by page (end_page).
local meta, now = fields(META, 'status', 'expires_at'), now_ms()
local live = meta.status == 'in_progress' or meta.status == 'paused'
if not live or not meta.expires_at or tonumber(meta.expires_at) > now or nothing_left(META) then
  return 0
end
redis.call('HSET', META, 'status', 'finalizing', 'ends_as', 'expired', 'finalizing_at', now)
wake(EVENTS, events_kept, 'status', 'finalizing')
return 1
