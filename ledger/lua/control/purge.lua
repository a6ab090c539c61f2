-- purge(KEYS meta, every other key of the batch...) -> 1: gone | 0: it has not ended | -1: unknown
local status = redis.call('HGET', KEYS[1], 'status')
if not status then
  return -1
end
if not redis.call('HGET', KEYS[1], 'ended_at') then
  return 0
end
for i = 1, #KEYS do
  redis.call('UNLINK', KEYS[i])
end
return 1
