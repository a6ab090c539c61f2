-- part_note(KEYS meta, parts; ARGV field, value) -> the value that stands there now, '' if the batch is gone or has ended
-- First write wins: what was noted before is what happened.
local meta = fields(META, 'status', 'ended_at')
if not meta.status or meta.ended_at then
  return ''
end
redis.call('HSETNX', PARTS, field, value)
return redis.call('HGET', PARTS, field)
