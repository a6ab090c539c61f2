-- abort(KEYS meta, every other key of the batch...; ARGV silent_ms) -> 1: gone | 0: sealed, or its producer is alive
-- Only what was never sealed can be taken back. silent_ms 0 is the producer itself giving up.
local meta = redis.call('HMGET', KEYS[1], 'status', 'touched_at')
if meta[1] and meta[1] ~= 'validating' then
  return 0
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if meta[1] and now - tonumber(meta[2]) < tonumber(ARGV[1]) then
  return 0
end
for i = 1, #KEYS do
  redis.call('UNLINK', KEYS[i])
end
return 1
