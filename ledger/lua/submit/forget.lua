-- forget(KEYS meta, active, batches; ARGV batch_id) -> 1: out of the indexes | 0: there is such a batch
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return 1
