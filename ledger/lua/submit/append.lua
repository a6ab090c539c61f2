-- append(KEYS meta, inputs, ids, custom_ids; ARGV ttl_s, with_ids, (index, input, custom_id)...)
--   -> 'ok' | 'gone' | 'missing <index>': not recorded, as that one comes first | 'repeated <custom_id>'
-- `written` is how many inputs are recorded, without a hole: the producer's memory may be ahead of a
-- server that has gone back. Every key written before the seal expires, so that a dead producer leaves
-- nothing for good (renew.lua).
local meta = fields(META, 'status', 'written')
if meta.status ~= 'validating' then
  return 'gone'
end
local written, start = tonumber(meta.written or 0), tonumber(ARGV[RECORDS_AT])
if start > written then
  return 'missing ' .. written
end
local inputs, ids, names, seen = {}, {}, {}, {}
for index, input, custom_id in records() do
  table.insert(inputs, index)
  table.insert(inputs, input)
  if with_ids == '1' then
    -- Unless it is this item's own: this very call, repeated because its answer was lost.
    local before = redis.call('SISMEMBER', CUSTOM_IDS, custom_id) == 1
    if seen[custom_id] or (before and redis.call('HGET', IDS, index) ~= custom_id) then
      return 'repeated ' .. custom_id
    end
    seen[custom_id] = true
    table.insert(ids, index)
    table.insert(ids, custom_id)
    table.insert(names, custom_id)
  end
end
redis.call('HSET', META, 'touched_at', now_ms(), 'written', math.max(written, start + #inputs / 2))
redis.call('EXPIRE', META, ttl_s)
redis.call('HSET', INPUTS, unpack(inputs))
redis.call('EXPIRE', INPUTS, ttl_s)
if #ids > 0 then
  redis.call('HSET', IDS, unpack(ids))
  redis.call('EXPIRE', IDS, ttl_s)
  redis.call('SADD', CUSTOM_IDS, unpack(names))
  redis.call('EXPIRE', CUSTOM_IDS, ttl_s)
end
return 'ok'
