-- api_beat(KEYS validating; ARGV lease_ms, batch_id, ...) -> 1
-- Renew the leases of batches whose validation goes on; those that it has ended stay out.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for i = 2, #ARGV do
  redis.call('ZADD', KEYS[1], 'XX', now + ARGV[1], ARGV[i])
end
return 1
