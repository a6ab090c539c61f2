-- part_progress(KEYS meta; ARGV done) -> 1 | 0: the batch is gone or has ended
-- How many requests the provider has answered, of the parts whose answers are not here yet.
local meta = redis.call('HMGET', KEYS[1], 'status', 'ended_at')
if not meta[1] or meta[2] then
  return 0
end
redis.call('HSET', KEYS[1], 'provider_done', ARGV[1])
return 1
