-- note(KEYS meta, events; ARGV events_kept, status) -> 1 | 0: the batch is gone or has ended
-- uses: ending
-- Without a batch the stream would be made anew, and never expire.
local meta = fields(META, 'status', 'ended_at')
if not meta.status or meta.ended_at then
  return 0
end
wake(EVENTS, events_kept, 'status', status)
return 1
