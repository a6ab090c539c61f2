-- pause(KEYS meta, events; ARGV events_kept, [reason]) -> the status now, or '' if there is no such batch
-- uses: ending
-- A batch with nothing left to do is not paused. No new item starts: a claim asks for the status. What runs may end. The reason, JSON, is a
-- worker's: why nothing can succeed until someone acts.
local status = redis.call('HGET', KEYS[1], 'status')
if status == 'in_progress' and not nothing_left(KEYS[1]) then
  status = 'paused'
  redis.call('HSET', KEYS[1], 'status', status)
  if ARGV[2] then
    redis.call('HSET', KEYS[1], 'reason', ARGV[2])
  end
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'status', status)
end
return status or ''
