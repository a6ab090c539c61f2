-- retry_shard(KEYS meta, outcomes, history, shards, settled, again, kept; ARGV shard, lease_ms, code, ...) -> items that will run again
-- Takes the outcomes of failed items (of these codes, or of any) into their history, and queues the
-- shard to be published again. Only between retry_begin and finish.
local meta = redis.call('HMGET', KEYS[1], 'status', 'retrying_until')
local start, stop = string.match(redis.call('HGET', KEYS[4], ARGV[1]) or '', '^(%d+) (%d+) ')
if meta[1] ~= 'in_progress' or not meta[2] or not start or redis.call('HGET', KEYS[5], ARGV[1]) ~= 'closed' then
  return 0
end
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], 'retrying_until', t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[2])
local wanted = {}
for i = 3, #ARGV do
  wanted[ARGV[i]] = true
end
local indexes = {}
for index = start, stop - 1 do
  table.insert(indexes, index)
end
local outcomes = redis.call('HMGET', KEYS[2], unpack(indexes))
local retried = 0
for i, index in ipairs(indexes) do
  -- Only the head is looked at: an output may hold any words. A failed item has no output, so that
  -- its outcome is one JSON object.
  local outcome = outcomes[i]
  if outcome and string.find(outcome, '^{"attempts":%d+,"settled_at":[%d.]+,"duration":[%d.-]+,"status": ?"failed"') then
    local error = cjson.decode(outcome)['error']
    if #ARGV < 3 or wanted[error['code']] then
      local before = redis.call('HGET', KEYS[3], index)
      redis.call('HSET', KEYS[3], index, before and string.sub(before, 1, -2) .. ',' .. outcome .. ']' or '[' .. outcome .. ']')
      redis.call('HDEL', KEYS[2], index)
      if error['retryable'] ~= true then
        -- Who knows which step is to blame: all are run again.
        redis.call('HDEL', KEYS[7], index)
      end
      retried = retried + 1
    end
  end
end
if retried > 0 then
  redis.call('HINCRBY', KEYS[1], 'failed', -retried)
  redis.call('HINCRBY', KEYS[1], 'again_items', retried)
  redis.call('HINCRBY', KEYS[1], 'closed_items', start - stop)
  redis.call('HSET', KEYS[5], ARGV[1], stop - start - retried)
  redis.call('RPUSH', KEYS[6], ARGV[1] .. ' ' .. retried)
end
return retried
