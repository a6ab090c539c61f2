-- audit(KEYS meta, audit; ARGV token, did, by, kept) -> 1: noted, now or before | 0: there is no such batch
-- Who has done what to a batch, the latest `kept` of them. The token is the call's: the same call, repeated
-- because its answer was lost, notes nothing more. The key ends with the batch.
if redis.call('EXISTS', META) == 0 then
  return 0
end
for _, line in ipairs(redis.call('LRANGE', AUDIT, 0, -1)) do
  if cjson.decode(line).token == token then
    return 1
  end
end
redis.call('RPUSH', AUDIT, cjson.encode({token = token, did = did, by = by, at_ms = now_ms()}))
redis.call('LTRIM', AUDIT, -kept, -1)
local ttl = redis.call('PTTL', META)
if ttl > 0 then
  redis.call('PEXPIRE', AUDIT, ttl)
end
return 1
