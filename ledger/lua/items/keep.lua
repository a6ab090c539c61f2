-- keep(KEYS meta, runs, kept; ARGV index, token, steps, usage_json, index, ...) -> items kept
-- What the steps of running items have given is kept for their next attempt, should this one not
-- come to its end. `usage_json` is all that an item has used so far; what is new in it is counted,
-- so that a call whose answer was lost may be repeated.
local kept = 0
for i = 1, #ARGV, 4 do
  local index, steps, usage = ARGV[i], ARGV[i + 2], ARGV[i + 3]
  local token = string.match(redis.call('HGET', KEYS[2], index) or '', '%S+$')
  if token == ARGV[i + 1] then
    local before = redis.call('HMGET', KEYS[3], index, index .. '.usage')
    if steps ~= '' and string.sub(before[1] or '', -#steps) ~= steps then
      redis.call('HSET', KEYS[3], index, (before[1] or '') .. steps)
    end
    local counted = cjson.decode(before[2] or '{}')
    for name, n in pairs(cjson.decode(usage)) do
      -- A known 0 is not nothing.
      if n > (counted[name] or -1) then
        redis.call('HINCRBY', KEYS[1], 'usage.' .. name, string.format('%.0f', n - (counted[name] or 0)))
      end
    end
    redis.call('HSET', KEYS[3], index .. '.usage', usage)
    kept = kept + 1
  end
end
return kept
