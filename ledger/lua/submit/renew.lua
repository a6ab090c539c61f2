-- renew(KEYS meta, every other key of the batch..., [idempotency_key]; ARGV ttl_s) -> 1 | 0: not being written any more
-- The heartbeat of a producer: it is alive, however long its next input takes, and nothing that it has
-- written expires before the seal.
if redis.call('HGET', KEYS[1], 'status') ~= 'validating' then
  return 0
end
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], 'touched_at', t[1] * 1000 + math.floor(t[2] / 1000))
for i = 1, #KEYS do
  redis.call('EXPIRE', KEYS[i], ARGV[1])
end
return 1
