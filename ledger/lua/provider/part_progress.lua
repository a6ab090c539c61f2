-- part_progress(KEYS meta; ARGV done) -> 1 | 0: the batch is gone or has ended
-- How many requests the provider has answered, of the parts whose answers are not here yet.
local meta = fields(META, 'status', 'ended_at')
if not meta.status or meta.ended_at then
  return 0
end
redis.call('HSET', META, 'provider_done', done)
return 1
