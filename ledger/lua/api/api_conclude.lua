-- api_conclude(KEYS record, validating; ARGV batch_id, status, stamp, (field, value)...) -> 1: now | 0: it was concluded before, or is gone
-- End a validation: the batch is `submitted`, `failed` or `cancelled`. `stamp` names the field that gets the time.
redis.call('ZREM', VALIDATING, batch_id)
if redis.call('HGET', RECORD, 'status') ~= 'validating' then
  return 0
end
redis.call('HSET', RECORD, 'status', status, stamp, now_ms(), unpack(ARGV, RECORDS_AT))
return 1
