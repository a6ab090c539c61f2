-- seal(KEYS meta, custom_ids, active, batches, notices, inputs and ids of each page..., every other key of the batch..., [idempotency_key];
--      ARGV batch_id, total, window_ms, page_size, with_ids, notices, named, field, value, ...)
--   -> 'ok' | 'gone' | 'missing <index>' | 'lost <what>' | 'taken <batch_id>'
-- Accepts nothing but what is recorded: each input and custom_id, what the end of the batch owes, and the
-- idempotency key. The fields say how the batch is cut into shards and tasks.
-- From here on every item will get an outcome. The keys stay until the commit gives them an end.
local meta = redis.call('HMGET', KEYS[1], 'status', 'written', 'created_at')
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if meta[1] ~= 'validating' then
  -- Only its producer seals a batch: if it is sealed, this is the same call, its answer lost.
  return meta[1] and 'ok' or 'gone'
end
local total, page_size = tonumber(ARGV[2]), tonumber(ARGV[4])
if tonumber(meta[2] or 0) < total then
  return 'missing ' .. (meta[2] or 0)
end
local with_ids, pages = ARGV[5] == '1', math.ceil(total / page_size)
for page = 0, pages - 1 do
  local there = math.min(page_size, total - page * page_size)
  local inputs, ids = KEYS[6 + 2 * page], KEYS[7 + 2 * page]
  if redis.call('HLEN', inputs) ~= there or (with_ids and redis.call('HLEN', ids) ~= there) then
    return 'lost inputs of page ' .. page
  end
end
if with_ids and redis.call('SCARD', KEYS[2]) ~= total then
  return 'lost custom_ids'
end
if redis.call('HLEN', KEYS[5]) ~= tonumber(ARGV[6]) then
  return 'lost on_complete or webhook'
end
if ARGV[7] == '1' then
  redis.call('SET', KEYS[#KEYS], ARGV[1], 'NX')
  local holder = redis.call('GET', KEYS[#KEYS])
  if holder ~= ARGV[1] then
    return 'taken ' .. holder
  end
end
redis.call('HSET', KEYS[1], 'status', 'in_progress', 'in_progress_at', now, 'total', total,
  'published', 0, 'next', 0, unpack(ARGV, 8))
if tonumber(ARGV[3]) > 0 then
  redis.call('HSET', KEYS[1], 'expires_at', now + ARGV[3])
end
-- Of a large batch it has millions of members.
redis.call('UNLINK', KEYS[2])
redis.call('PERSIST', KEYS[1])
for i = 5, #KEYS do
  redis.call('PERSIST', KEYS[i])
end
-- Whoever took it for gone while the server went back may have taken it out.
redis.call('ZADD', KEYS[3], 'NX', meta[3], ARGV[1])
redis.call('ZADD', KEYS[4], 'NX', meta[3], ARGV[1])
return 'ok'
