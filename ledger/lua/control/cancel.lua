-- cancel(KEYS meta, events; ARGV events_kept) -> the status now, or '' if there is no such batch
-- No new item starts from here on. What has no outcome gets one page by page (end_page).
local status = redis.call('HGET', KEYS[1], 'status')
if status == 'in_progress' or status == 'paused' then
  status = 'cancelling'
  local t = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'status', status, 'ends_as', 'cancelled',
    'cancelling_at', t[1] * 1000 + math.floor(t[2] / 1000))
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'status', status)
end
return status or ''
