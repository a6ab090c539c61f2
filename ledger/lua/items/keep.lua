-- keep(KEYS meta, runs, kept; ARGV (index, token, steps, usage)...) -> items kept
-- What the steps of running items have given is kept for their next attempt, should this one not
-- come to its end. `usage`, JSON, is all that an item has used so far; what is new in it is counted,
-- so that a call whose answer was lost may be repeated.
local kept = 0
for index, ours, steps, usage in records() do
  local token = string.match(redis.call('HGET', RUNS, index) or '', '%S+$')
  if token == ours then
    local before = redis.call('HMGET', KEPT, index, index .. '.usage')
    if steps ~= '' and string.sub(before[1] or '', -#steps) ~= steps then
      redis.call('HSET', KEPT, index, (before[1] or '') .. steps)
    end
    local counted = cjson.decode(before[2] or '{}')
    for name, n in pairs(cjson.decode(usage)) do
      -- A known 0 is not nothing.
      if n > (counted[name] or -1) then
        redis.call('HINCRBY', META, 'usage.' .. name, whole(n - (counted[name] or 0)))
      end
    end
    redis.call('HSET', KEPT, index .. '.usage', usage)
    kept = kept + 1
  end
end
return kept
