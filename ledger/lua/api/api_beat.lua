-- api_beat(KEYS validating; ARGV lease_ms, batch_ids...) -> 1
-- Renew the leases of batches whose validation goes on; those that it has ended stay out.
local until_ms = now_ms() + lease_ms
for i = BATCH_IDS_AT, #ARGV do
  redis.call('ZADD', VALIDATING, 'XX', until_ms, ARGV[i])
end
return 1
