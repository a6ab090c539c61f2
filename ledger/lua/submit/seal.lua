-- seal(KEYS meta, custom_ids, active, batches, outbox, all...;
--      ARGV batch_id, total, window_ms, page_size, with_ids, entries, named, (field, value)...)
--   -> 'ok' | 'gone' | 'missing <index>' | 'lost <what>' | 'taken <batch_id>'
-- `all`: the inputs and ids of each page, then every key of the batch, then its idempotency key, if it is
-- `named`. Accepts nothing but what is recorded: each input and custom_id, what the end of the batch owes
-- (`entries` of its outbox), and the idempotency key. The fields say how the batch is cut into shards and tasks.
-- From here on every item will get an outcome. The keys stay until the commit gives them an end.
local meta = fields(META, 'status', 'written', 'created_at')
if meta.status ~= 'validating' then
  -- Only its producer seals a batch: if it is sealed, this is the same call, its answer lost.
  return meta.status and 'ok' or 'gone'
end
total, page_size = tonumber(total), tonumber(page_size)
if tonumber(meta.written or 0) < total then
  return 'missing ' .. (meta.written or 0)
end
for page = 0, math.ceil(total / page_size) - 1 do
  local there = math.min(page_size, total - page * page_size)
  local inputs, ids = KEYS[ALL_AT + 2 * page], KEYS[ALL_AT + 2 * page + 1]
  if redis.call('HLEN', inputs) ~= there or (with_ids == '1' and redis.call('HLEN', ids) ~= there) then
    return 'lost inputs of page ' .. page
  end
end
if with_ids == '1' and redis.call('SCARD', CUSTOM_IDS) ~= total then
  return 'lost custom_ids'
end
if redis.call('HLEN', OUTBOX) ~= tonumber(entries) then
  return 'lost on_complete or webhook'
end
if named == '1' then
  redis.call('SET', KEYS[#KEYS], batch_id, 'NX')
  local holder = redis.call('GET', KEYS[#KEYS])
  if holder ~= batch_id then
    return 'taken ' .. holder
  end
end
local now = now_ms()
redis.call('HSET', META, 'status', 'in_progress', 'in_progress_at', now, 'total', total,
  'published', 0, 'next', 0, unpack(ARGV, RECORDS_AT))
if tonumber(window_ms) > 0 then
  redis.call('HSET', META, 'expires_at', now + window_ms)
end
-- Of a large batch it has millions of members.
redis.call('UNLINK', CUSTOM_IDS)
for i = ALL_AT, #KEYS do
  redis.call('PERSIST', KEYS[i])
end
-- A process that took the batch for gone while the server went back may have taken it out.
redis.call('ZADD', ACTIVE, 'NX', meta.created_at, batch_id)
redis.call('ZADD', BATCHES, 'NX', meta.created_at, batch_id)
return 'ok'
