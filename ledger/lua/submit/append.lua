-- append(KEYS meta, inputs, ids, custom_ids; ARGV ttl_s, with_ids, index, input, [custom_id], index, ...)
--   -> 'ok' | 'gone' | 'missing <index>': not recorded, as that one comes first | 'repeated <custom_id>'
-- `written` is how many inputs are recorded, without a hole: the producer's memory may be ahead of a
-- server that has gone back. Every key written before the seal expires, so that a dead producer leaves
-- nothing for good (renew.lua).
local meta = redis.call('HMGET', KEYS[1], 'status', 'written')
if meta[1] ~= 'validating' then
  return 'gone'
end
local written, start = tonumber(meta[2] or 0), tonumber(ARGV[3])
if start > written then
  return 'missing ' .. written
end
local with_ids = ARGV[2] == '1'
local step = with_ids and 3 or 2
local inputs, ids, names, seen = {}, {}, {}, {}
for i = 3, #ARGV, step do
  local index, custom_id = ARGV[i], ARGV[i + 2]
  table.insert(inputs, index)
  table.insert(inputs, ARGV[i + 1])
  if with_ids then
    -- Unless it is this item's own: this very call, repeated because its answer was lost.
    local before = redis.call('SISMEMBER', KEYS[4], custom_id) == 1
    if seen[custom_id] or (before and redis.call('HGET', KEYS[3], index) ~= custom_id) then
      return 'repeated ' .. custom_id
    end
    seen[custom_id] = true
    table.insert(ids, index)
    table.insert(ids, custom_id)
    table.insert(names, custom_id)
  end
end
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], 'touched_at', t[1] * 1000 + math.floor(t[2] / 1000),
  'written', math.max(written, start + #inputs / 2))
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[2], unpack(inputs))
redis.call('EXPIRE', KEYS[2], ARGV[1])
if with_ids then
  redis.call('HSET', KEYS[3], unpack(ids))
  redis.call('EXPIRE', KEYS[3], ARGV[1])
  redis.call('SADD', KEYS[4], unpack(names))
  redis.call('EXPIRE', KEYS[4], ARGV[1])
end
return 'ok'
