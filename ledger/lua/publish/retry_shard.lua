-- retry_shard(KEYS meta, outcomes, history, shards, settled, again, kept, stats, failed; ARGV shard, lease_ms, token, codes...)
--   -> items that will run again | -1: the retry of this token is undone, or another one's turn
-- uses: statistics
-- Takes the outcomes of failed items (of these codes, or of any) into their history, and queues the
-- shard to be published again. Only between retry_begin and finish. `retry_moved` counts all of them:
-- an answer may be lost, and a server that goes back may have undone what was answered.
local meta = fields(META, 'status', 'retrying_until', 'retrier')
if meta.retrier ~= token then
  return -1
end
local start, stop = string.match(redis.call('HGET', SHARDS, shard) or '', '^(%d+) (%d+) ')
if meta.status ~= 'in_progress' or not meta.retrying_until or not start then
  return 0
end
-- Its gather may have been lost, where the window was over as the batch completed (final_status).
local settled = redis.call('HGET', SETTLED, shard)
if settled ~= 'closed' and tonumber(settled or 0) < stop - start then
  return 0
end
redis.call('HSET', META, 'retrying_until', now_ms() + lease_ms)
local wanted, indexes = {}, {}
for i = CODES_AT, #ARGV do
  wanted[ARGV[i]] = true
end
for index = start, stop - 1 do
  table.insert(indexes, index)
end
local retried, by_code, gone = 0, {}, {}
for i, code in ipairs(redis.call('HMGET', FAILED, unpack(indexes))) do
  if code and (#ARGV < CODES_AT or wanted[code]) then
    local index = indexes[i]
    -- A failed item has no output, so that its outcome is one JSON object.
    local outcome, before = redis.call('HGET', OUTCOMES, index), redis.call('HGET', HISTORY, index)
    redis.call('HSET', HISTORY, index, before and string.sub(before, 1, -2) .. ',' .. outcome .. ']' or '[' .. outcome .. ']')
    redis.call('HDEL', OUTCOMES, index)
    redis.call('HDEL', FAILED, index)
    if cjson.decode(outcome)['error']['retryable'] ~= true then
      -- Which step is to blame is unknown: all are run again.
      redis.call('HDEL', KEPT, index)
    end
    retried = retried + 1
    by_code[code] = (by_code[code] or 0) + 1
    gone[index] = true
  end
end
if retried > 0 then
  -- The next end is one of its own (commit). Someone has acted; whether that helped, the next items
  -- tell, as the first ones did (settle).
  redis.call('HDEL', META, 'end_noted', 'reason', 'alike', 'alike_n')
  redis.call('HINCRBY', META, 'failed', -retried)
  redis.call('HINCRBY', META, 'again_items', retried)
  redis.call('HINCRBY', META, 'retry_moved', retried)
  if settled == 'closed' then
    redis.call('HINCRBY', META, 'closed_items', start - stop)
  end
  redis.call('HSET', SETTLED, shard, stop - start - retried)
  redis.call('RPUSH', AGAIN, shard .. ' ' .. retried)
  -- The statistics tell of failures that stand.
  unlearn(STATS, by_code, gone, retried)
end
return retried
