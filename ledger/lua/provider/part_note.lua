-- part_note(KEYS meta, parts; ARGV field, value) -> the value that stands there now, '' if the batch is gone or has ended
-- First write wins: what was noted before is what happened.
local meta = redis.call('HMGET', KEYS[1], 'status', 'ended_at')
if not meta[1] or meta[2] then
  return ''
end
redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2])
return redis.call('HGET', KEYS[2], ARGV[1])
