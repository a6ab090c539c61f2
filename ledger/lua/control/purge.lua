-- purge(KEYS meta, all...) -> 1: gone | 0: it has not ended | -1: unknown
-- `all`: every key of the batch.
local meta = fields(META, 'status', 'ended_at')
if not meta.status then
  return -1
end
if not meta.ended_at then
  return 0
end
for i = ALL_AT, #KEYS do
  redis.call('UNLINK', KEYS[i])
end
return 1
