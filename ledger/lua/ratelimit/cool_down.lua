-- cool_down(KEYS rates; ARGV us) -> until when no process may call, in microseconds: the era of what is reserved from now on
-- The later end holds. Places in time of before are void, so that what they cost is given back.
local now = now_us()
local state = fields(RATES, 'requests', 'tokens', 'cool', 'paced')
local cool, wanted = tonumber(state.cool or 0), now + us
if wanted > cool then
  cool = wanted
  redis.call('HSET', RATES, 'cool', whole(cool), 'requests', whole(math.min(tonumber(state.requests or 0), cool)),
    'tokens', whole(math.min(tonumber(state.tokens or 0), cool)), 'paced', whole(math.min(tonumber(state.paced or 0), cool)))
  redis.call('PEXPIRE', RATES, whole((cool - now) / 1000 + 600000))
end
return cool
