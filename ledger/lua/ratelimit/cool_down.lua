-- cool_down(KEYS rates; ARGV us) -> until when nobody may call, in microseconds: the era of what is reserved from now on
-- The later end holds. Places in time of before are void, so that what they cost is given back.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local state = redis.call('HMGET', KEYS[1], 'requests', 'tokens', 'cool')
local cool = tonumber(state[3] or 0)
local wanted = now + tonumber(ARGV[1])
if wanted > cool then
  cool = wanted
  redis.call('HSET', KEYS[1], 'cool', string.format('%.0f', cool),
    'requests', string.format('%.0f', math.min(tonumber(state[1] or 0), cool)),
    'tokens', string.format('%.0f', math.min(tonumber(state[2] or 0), cool)))
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', (cool - now) / 1000 + 60000))
end
return cool
