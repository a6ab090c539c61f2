-- forget(KEYS meta, active, batches; ARGV batch_id) -> 1: out of the indexes | 0: there is such a batch
if redis.call('EXISTS', META) == 1 then
  return 0
end
redis.call('ZREM', ACTIVE, batch_id)
redis.call('ZREM', BATCHES, batch_id)
return 1
