-- note(KEYS meta, events; ARGV events_kept, status) -> 1 | 0: the batch is gone or has ended
-- Without a batch the stream would be made anew, and never expire.
local meta = redis.call('HMGET', KEYS[1], 'status', 'ended_at')
if not meta[1] or meta[2] then
  return 0
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'status', ARGV[2])
return 1
