-- retry_shard(KEYS meta, outcomes, history, shards, settled, again, kept, stats; ARGV shard, lease_ms, token, code, ...)
--   -> items that will run again | -1: the retry of this token is undone, or another one's turn
-- Takes the outcomes of failed items (of these codes, or of any) into their history, and queues the
-- shard to be published again. Only between retry_begin and finish. `retry_moved` counts all of them:
-- an answer may be lost, and a server that goes back may have undone what was answered.
local meta = redis.call('HMGET', KEYS[1], 'status', 'retrying_until', 'retrier')
if meta[3] ~= ARGV[3] then
  return -1
end
local start, stop = string.match(redis.call('HGET', KEYS[4], ARGV[1]) or '', '^(%d+) (%d+) ')
if meta[1] ~= 'in_progress' or not meta[2] or not start then
  return 0
end
-- Its gather may have been lost, where the window was over as the batch completed (final_status).
local settled = redis.call('HGET', KEYS[5], ARGV[1])
if settled ~= 'closed' and tonumber(settled or 0) < stop - start then
  return 0
end
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], 'retrying_until', t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[2])
local wanted = {}
for i = 4, #ARGV do
  wanted[ARGV[i]] = true
end
local indexes = {}
for index = start, stop - 1 do
  table.insert(indexes, index)
end
local outcomes = redis.call('HMGET', KEYS[2], unpack(indexes))
local retried, by_code, gone = 0, {}, {}
for i, index in ipairs(indexes) do
  -- Only the head is looked at: an output may hold any words. A failed item has no output, so that
  -- its outcome is one JSON object.
  local outcome = outcomes[i]
  if outcome and string.find(outcome, '^{"attempts":%d+,"settled_at":[%d.]+,"duration":[%d.-]+,"status": ?"failed"') then
    local error = cjson.decode(outcome)['error']
    local code = error['code']
    if #ARGV < 4 or wanted[code] then
      local before = redis.call('HGET', KEYS[3], index)
      redis.call('HSET', KEYS[3], index, before and string.sub(before, 1, -2) .. ',' .. outcome .. ']' or '[' .. outcome .. ']')
      redis.call('HDEL', KEYS[2], index)
      if error['retryable'] ~= true then
        -- Who knows which step is to blame: all are run again.
        redis.call('HDEL', KEYS[7], index)
      end
      retried = retried + 1
      by_code[code] = (by_code[code] or 0) + 1
      gone[index] = true
    end
  end
end
if retried > 0 then
  -- The next end is one of its own (commit). Someone has acted; whether that helped, the next items
  -- tell, as the first ones did (settle).
  redis.call('HDEL', KEYS[1], 'noticed', 'reason', 'alike', 'alike_n')
  redis.call('HINCRBY', KEYS[1], 'failed', -retried)
  redis.call('HINCRBY', KEYS[1], 'again_items', retried)
  redis.call('HINCRBY', KEYS[1], 'retry_moved', retried)
  if settled == 'closed' then
    redis.call('HINCRBY', KEYS[1], 'closed_items', start - stop)
  end
  redis.call('HSET', KEYS[5], ARGV[1], stop - start - retried)
  redis.call('RPUSH', KEYS[6], ARGV[1] .. ' ' .. retried)

  -- The statistics tell of failures that stand; what was made and how long it took stays counted.
  local codes, left = cjson.decode(redis.call('HGET', KEYS[8], 'codes') or '{}'), {}
  for code, n in pairs(by_code) do
    code = codes[code] and code or '(other)'
    if codes[code] then
      codes[code][1] = codes[code][1] - n
    end
  end
  for code, seen in pairs(codes) do
    if seen[1] > 0 then
      left[code] = {seen[1]}
      for i = 2, #seen do
        if not gone[seen[i]] then
          table.insert(left[code], seen[i])
        end
      end
    end
  end
  redis.call('HSET', KEYS[8], 'codes', cjson.encode(left))
  redis.call('HINCRBY', KEYS[8], 'retried', retried)
end
return retried
