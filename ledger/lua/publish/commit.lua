-- commit(KEYS active, used, outbox_due, totals, meta, events, outbox, stats, all...;
--        ARGV batch_id, ttl_s, events_kept, of_meta, names...) -> 1: committed now | 0: not at its end | -1: ended before
-- uses: ending day_budget
-- The batch ends here, once, when each of its items has an outcome. Its keys (`all`) get their end in the
-- same step, so none can be left without; and it leaves the index in the same step, so that it cannot be
-- taken out of it after someone has opened it again. What a batch has used is added, the first time
-- that it completes, to what its chain is known to use; that is halved now and then, so that numbers
-- stay small and the past fades. What is owed to others at this end is noted in the same step, with the
-- batch as it is now; retries that ran nothing again make no new end. The named numbers, the first
-- `of_meta` of which are in `meta` and the others in `stats`, go into the chain's totals: what they have
-- grown by since the batch's last end. Chains that travel as data (KIND@DIGEST) are counted by their kind,
-- and what they use is noted of the first thousand: any number of them may be made.
local meta = fields(META, 'status', 'total', 'chain', 'summed')
if meta.status ~= 'finalizing' and meta.status ~= 'cancelling' then
  if meta.status == 'in_progress' or meta.status == 'paused' or meta.status == 'validating' then
    return 0
  end
  redis.call('ZREM', ACTIVE, batch_id)
  return -1
end
if unfinished(META) > 0 then
  return 0
end
count_cost(META, now_ms())
local family = string.match(meta.chain, '^[^@]*')
local done, status, now = tonumber(meta.total), final_status(META), now_ms()
redis.call('HSET', META, 'status', status, 'ended_at', now)
if status == 'completed' then
  -- Of a window that has expired nothing: items that retry_failed runs again are not to stop.
  redis.call('HDEL', META, 'ends_as')
end
wake(EVENTS, events_kept, 'status', status)
redis.call('ZREM', ACTIVE, batch_id)
if redis.call('HSETNX', META, 'end_noted', 1) == 1 then
  local nth = redis.call('HINCRBY', META, 'ends', 1)
  redis.call('HSET', OUTBOX, nth, cjson.encode(redis.call('HGETALL', META)))
  redis.call('ZADD', OUTBOX_DUE, now, batch_id .. ' ' .. nth)
  if redis.call('HEXISTS', OUTBOX, 'on_complete') == 1 then
    redis.call('ZADD', OUTBOX_DUE, now, batch_id .. ' on_complete')
  end
  redis.call('HINCRBY', TOTALS, 'batches.' .. status .. ' ' .. family, 1)
end
local known, summed = {}, {}
for name, n in string.gmatch(meta.summed or '', '(%S+) (%d+)') do
  known[name] = tonumber(n)
end
for i = NAMES_AT, #ARGV do
  local name, source = ARGV[i], i - NAMES_AT < tonumber(of_meta) and META or STATS
  local n = tonumber(redis.call('HGET', source, name) or 0)
  if n ~= (known[name] or 0) then
    redis.call('HINCRBY', TOTALS, name .. ' ' .. family, whole(n - (known[name] or 0)))
  end
  table.insert(summed, name .. ' ' .. whole(n))
end
redis.call('HSET', META, 'summed', table.concat(summed, ' '))
for i = ALL_AT, #KEYS do
  redis.call('EXPIRE', KEYS[i], ttl_s)
end

local use = fields(META, 'usage.input_tokens', 'usage.output_tokens', 'usage.cost_nanos', 'usage.unpriced_requests', 'use_noted')
local input_tokens, output_tokens, nanos = use['usage.input_tokens'], use['usage.output_tokens'], use['usage.cost_nanos']
local noted = family == meta.chain or redis.call('HEXISTS', USED, meta.chain) == 1 or redis.call('HLEN', USED) < 1000
if status == 'completed' and noted and (input_tokens or output_tokens) and not use.use_noted then
  redis.call('HSET', META, 'use_noted', 1)
  local priced = nanos and tonumber(use['usage.unpriced_requests'] or 0) == 0
  local new, sums = {1, done, input_tokens or 0, output_tokens or 0, priced and done or 0, priced and nanos or 0}, {}
  for n in string.gmatch(redis.call('HGET', USED, meta.chain) or '', '%d+') do
    table.insert(sums, tonumber(n))
  end
  local fades = (sums[2] or 0) >= 100000 and 2 or 1
  for i, n in ipairs(new) do
    -- The number of batches does not fade: it is told to people.
    new[i] = whole(math.floor((sums[i] or 0) / (i > 1 and fades or 1)) + n)
  end
  redis.call('HSET', USED, meta.chain, table.concat(new, ' '))
end
return 1
