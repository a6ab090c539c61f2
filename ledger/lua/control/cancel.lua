-- cancel(KEYS meta, events; ARGV events_kept) -> the status now, or '' if there is no such batch
-- uses: ending
-- No new item starts from here on. What has no outcome gets one page by page (end_page).
local status = redis.call('HGET', META, 'status')
if status == 'in_progress' or status == 'paused' then
  status = 'cancelling'
  redis.call('HSET', META, 'status', status, 'ends_as', 'cancelled', 'cancelling_at', now_ms())
  wake(EVENTS, events_kept, 'status', status)
end
return status or ''
