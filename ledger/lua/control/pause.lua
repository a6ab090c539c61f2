-- pause(KEYS meta, events; ARGV events_kept, [reason]) -> the status now, or '' if there is no such batch
-- uses: ending
-- A batch with nothing left to do is not paused. No new item starts: a claim asks for the status. What
-- runs may end. The reason, JSON, is a worker's: why nothing can succeed until someone acts.
local status = redis.call('HGET', META, 'status')
if status == 'in_progress' and not nothing_left(META) then
  status = 'paused'
  redis.call('HSET', META, 'status', status)
  if reason then
    redis.call('HSET', META, 'reason', reason)
  end
  wake(EVENTS, events_kept, 'status', status)
end
return status or ''
