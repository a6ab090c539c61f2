-- api_conclude(KEYS record, validating; ARGV batch_id, status, stamp, field, value, ...) -> 1: now | 0: it was concluded before, or is gone
-- End a validation: the batch is `submitted`, `failed` or `cancelled`. `stamp` names the field that gets the time.
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HGET', KEYS[1], 'status') ~= 'validating' then
  return 0
end
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], 'status', ARGV[2], ARGV[3], t[1] * 1000 + math.floor(t[2] / 1000), unpack(ARGV, 4))
return 1
