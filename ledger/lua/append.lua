-- append(KEYS meta, inputs, ids, custom_ids; ARGV ttl_s, with_ids, index, input, [custom_id], index, ...)
--   -> 'ok' | 'gone' | 'repeated <custom_id>'
-- Every key written before the seal expires, so that a dead producer leaves nothing for good.
if redis.call('HGET', KEYS[1], 'status') ~= 'validating' then
  return 'gone'
end
local t = redis.call('TIME')
local with_ids = ARGV[2] == '1'
local step = with_ids and 3 or 2
redis.call('HSET', KEYS[1], 'touched_at', t[1] * 1000 + math.floor(t[2] / 1000),
  'written', tonumber(ARGV[3]) + (#ARGV - 2) / step)
redis.call('EXPIRE', KEYS[1], ARGV[1])
local inputs = {}
for i = 3, #ARGV, step do
  table.insert(inputs, ARGV[i])
  table.insert(inputs, ARGV[i + 1])
  if with_ids then
    -- Unless it is this item's own: this very call, repeated because its answer was lost.
    if redis.call('SADD', KEYS[4], ARGV[i + 2]) == 0 and redis.call('HGET', KEYS[3], ARGV[i]) ~= ARGV[i + 2] then
      redis.call('EXPIRE', KEYS[3], ARGV[1])
      redis.call('EXPIRE', KEYS[4], ARGV[1])
      return 'repeated ' .. ARGV[i + 2]
    end
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 2])
  end
end
redis.call('HSET', KEYS[2], unpack(inputs))
redis.call('EXPIRE', KEYS[2], ARGV[1])
if with_ids then
  redis.call('EXPIRE', KEYS[3], ARGV[1])
  redis.call('EXPIRE', KEYS[4], ARGV[1])
end
return 'ok'
