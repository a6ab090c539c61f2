-- api_create(KEYS record, batches_of_tenant, validating, readers_of_file, live_of_tenant, [idempotency_key];
--            ARGV batch_id, ttl_s, most_batches, most_items, items, (field, value)...)
--   -> the id of the batch, which an earlier call may have made | 'batches' | 'items': the tenant has as many by now (0: no bound)
-- The record, its place in the lists and its validation begin in one step: a server that dies leaves all or nothing.
if IDEMPOTENCY_KEY then
  local before = redis.call('GET', IDEMPOTENCY_KEY)
  if before then
    return before
  end
end
local live = redis.call('HVALS', LIVE_OF_TENANT)
most_batches, most_items = tonumber(most_batches), tonumber(most_items)
if most_batches > 0 and #live >= most_batches then
  return 'batches'
end
local all = tonumber(items)
for _, n in ipairs(live) do
  all = all + n
end
if most_items > 0 and all > most_items then
  return 'items'
end
if IDEMPOTENCY_KEY then
  redis.call('SET', IDEMPOTENCY_KEY, batch_id, 'EX', ttl_s)
end
local now = now_ms()
redis.call('HSET', RECORD, 'status', 'validating', 'created_at', now, unpack(ARGV, RECORDS_AT))
redis.call('ZADD', BATCHES_OF_TENANT, now, batch_id)
redis.call('ZADD', VALIDATING, 0, batch_id)
redis.call('SADD', READERS_OF_FILE, batch_id)
redis.call('HSET', LIVE_OF_TENANT, batch_id, items)
-- The readers go with the bytes: a batch may be paused for long.
redis.call('EXPIRE', READERS_OF_FILE, 400 * 86400)
for _, key in ipairs({RECORD, BATCHES_OF_TENANT, LIVE_OF_TENANT}) do
  if redis.call('TTL', key) < tonumber(ttl_s) then
    redis.call('EXPIRE', key, ttl_s)
  end
end
return batch_id
