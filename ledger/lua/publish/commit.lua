-- commit(KEYS active, used, index, totals, meta, events, notices, stats, every other key of the batch...;
--        ARGV batch_id, ttl_s, events_kept, n, n names in meta, names in stats...) -> 1: committed now | 0: not at its end | -1: ended before
-- uses: ending
-- The batch ends here, once, when each of its items has an outcome. Keys get their end in the same
-- step, so none can be left without; and it leaves the index in the same step, so that it cannot be
-- taken out of it after someone has opened it again. What a batch has used is added, the first time
-- that it completes, to what its chain is known to use; that is halved now and then, so that numbers
-- stay small and the past fades. What is owed to others at this end is noted in the same step, with the
-- batch as it is now; retries that ran nothing again make no new end. The named numbers go into the
-- chain's totals: what they have grown by since the batch's last end. Chains that travel as data (KIND@DIGEST)
-- are counted by their kind, and what they use is noted of the first thousand: any number of them may be made.
local meta = redis.call('HMGET', KEYS[5], 'status', 'total', 'chain', 'summed')
if meta[1] ~= 'finalizing' and meta[1] ~= 'cancelling' then
  if meta[1] == 'in_progress' or meta[1] == 'paused' or meta[1] == 'validating' then
    return 0
  end
  redis.call('ZREM', KEYS[1], ARGV[1])
  return -1
end
if unfinished(KEYS[5]) > 0 then
  return 0
end
local family = string.match(meta[3], '^[^@]*')
local done, status, now = tonumber(meta[2]), final_status(KEYS[5]), ending_now()
redis.call('HSET', KEYS[5], 'status', status, 'ended_at', now)
if status == 'completed' then
  -- Of a window that has expired nothing: items that retry_failed runs again are not to stop.
  redis.call('HDEL', KEYS[5], 'ends_as')
end
redis.call('XADD', KEYS[6], 'MAXLEN', '~', ARGV[3], '*', 'status', status)
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('HSETNX', KEYS[5], 'noticed', 1) == 1 then
  local n = redis.call('HINCRBY', KEYS[5], 'ends', 1)
  redis.call('HSET', KEYS[7], n, cjson.encode(redis.call('HGETALL', KEYS[5])))
  redis.call('ZADD', KEYS[3], now, ARGV[1] .. ' ' .. n)
  if redis.call('HEXISTS', KEYS[7], 'on_complete') == 1 then
    redis.call('ZADD', KEYS[3], now, ARGV[1] .. ' on_complete')
  end
  redis.call('HINCRBY', KEYS[4], 'batches.' .. status .. ' ' .. family, 1)
end
local known, summed = {}, {}
for name, n in string.gmatch(meta[4] or '', '(%S+) (%d+)') do
  known[name] = tonumber(n)
end
for i = 5, #ARGV do
  local name = ARGV[i]
  local n = tonumber(redis.call('HGET', KEYS[i - 4 <= tonumber(ARGV[4]) and 5 or 8], name) or 0)
  if n ~= (known[name] or 0) then
    redis.call('HINCRBY', KEYS[4], name .. ' ' .. family, string.format('%.0f', n - (known[name] or 0)))
  end
  table.insert(summed, string.format('%s %.0f', name, n))
end
redis.call('HSET', KEYS[5], 'summed', table.concat(summed, ' '))
for i = 5, #KEYS do
  redis.call('EXPIRE', KEYS[i], ARGV[2])
end

local use = redis.call('HMGET', KEYS[5], 'usage.input_tokens', 'usage.output_tokens', 'usage.cost_nanos', 'usage.unpriced_requests', 'chain', 'use_noted')
local noted = family == meta[3] or redis.call('HEXISTS', KEYS[2], meta[3]) == 1 or redis.call('HLEN', KEYS[2]) < 1000
if status == 'completed' and (use[1] or use[2]) and not use[6] and noted then
  redis.call('HSET', KEYS[5], 'use_noted', 1)
  local priced = use[3] and tonumber(use[4] or 0) == 0
  local new, sums = {1, done, use[1] or 0, use[2] or 0, priced and done or 0, priced and use[3] or 0}, {}
  for n in string.gmatch(redis.call('HGET', KEYS[2], use[5]) or '', '%d+') do
    table.insert(sums, tonumber(n))
  end
  local fades = (sums[2] or 0) >= 100000 and 2 or 1
  for i, n in ipairs(new) do
    -- The number of batches does not fade: it is told to people.
    new[i] = string.format('%.0f', math.floor((sums[i] or 0) / (i > 1 and fades or 1)) + n)
  end
  redis.call('HSET', KEYS[2], use[5], table.concat(new, ' '))
end
return 1
