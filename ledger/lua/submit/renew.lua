-- renew(KEYS meta, all...; ARGV ttl_s) -> 1 | 0: not being written any more
-- The heartbeat of a producer: it is alive, however long its next input takes, and nothing that it has
-- written (`all`: every key of the batch) expires before the seal.
if redis.call('HGET', META, 'status') ~= 'validating' then
  return 0
end
redis.call('HSET', META, 'touched_at', now_ms())
for i = ALL_AT, #KEYS do
  redis.call('EXPIRE', KEYS[i], ttl_s)
end
return 1
