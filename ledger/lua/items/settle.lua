-- settle(KEYS meta, outcomes, runs, leases, shards, settled, done, events, kept, stats, firsts, due, failed;
--        ARGV events_kept, alike_limit, (index, token, shard, attempt, status, code, outcome, busy_us, usage)...)
--   -> {answer, ..., room, let_go}, an answer for each item: 0: refused, another execution holds or has settled
--      it | 1: recorded | 2: recorded, and each item of its shard has an outcome now; and whether the
--      batch's window has room for another shard since this call, and whether items that have waited may start
-- uses: ending outcome window twins day_budget pausing statistics
-- The items lie in one page. First write wins and nothing is ever written over: only the latest
-- claim's token is let through, and it is gone once the outcome is there. `outcome` begins with a JSON
-- object; the times are put in here. `usage`, JSON, is all that the item has used; what `keep` has
-- counted of it is not counted again. Each key is read and written once for all items.
local now = now_ms()
local indexes = {}
for index in records() do
  table.insert(indexes, index)
end
local held = redis.call('HMGET', RUNS, unpack(indexes))
local any_kept, any_firsts = any_of(KEPT, FIRSTS)
local answers, outcomes, done, failed, ended, counts, per_shard = {}, {}, {}, {}, {}, {}, {}

local function count(sums, name, n)
  sums[name] = (sums[name] or 0) + n
end

local shards = {}
local function bounds(shard)
  if not shards[shard] then
    local start, stop = string.match(redis.call('HGET', SHARDS, shard) or '', '^(%d+) (%d+) ')
    shards[shard] = {start = tonumber(start or 0), stop = tonumber(stop or 0)}
  end
  return shards[shard]
end

local function settle(item, index, token, shard, its_attempt, status, code, outcome, busy_us, usage)
  local rest = string.sub(outcome, 2)
  if not held[item] then
    -- The same outcome of the same attempt: this very call, repeated because its answer was lost.
    local recorded = redis.call('HGET', OUTCOMES, index)
    return recorded and is_outcome_of(recorded, its_attempt, rest) and 1 or 0
  end
  local attempt, claimed, holder = string.match(held[item], '^(%d+) (%d+) (%S+)$')
  local its = bounds(shard)
  -- Counted in a shard that is not its own, it would leave both open for good.
  if (holder ~= token and holder ~= token .. '!') or tonumber(index) < its.start or tonumber(index) >= its.stop then
    return 0
  end
  -- Once in a call, too.
  held[item] = false
  local ms = now - tonumber(claimed)
  table.insert(outcomes, index)
  table.insert(outcomes, outcome_head(attempt, now, ms) .. rest)
  table.insert(done, index)
  table.insert(ended, {status = status, code = code, index = index, attempt = attempt, ms = ms})
  if status == 'failed' then
    table.insert(failed, index)
    table.insert(failed, code)
  end
  count(counts, status, 1)
  count(per_shard, shard, 1)
  count(per_shard, shard .. '.us', busy_us)
  local counted = any_kept and cjson.decode(redis.call('HGET', KEPT, index .. '.usage') or '{}') or {}
  for name, n in pairs(cjson.decode(usage)) do
    count(counts, 'usage.' .. name, math.max(0, n - (counted[name] or 0)))
  end
  return 1
end

local item, shard_of = 0, {}
for index, token, shard, attempt, status, code, outcome, busy_us, usage in records() do
  item = item + 1
  shard_of[item] = shard
  answers[item] = settle(item, index, token, shard, attempt, status, code, outcome, busy_us, usage)
end
local let_go, twins = 0, 0
if #done > 0 then
  redis.call('HSET', OUTCOMES, unpack(outcomes))
  redis.call('HDEL', RUNS, unpack(done))
  redis.call('ZREM', LEASES, unpack(done))
  redis.call('RPUSH', DONE, unpack(done))
  if #failed > 0 then
    redis.call('HSET', FAILED, unpack(failed))
  end
  if any_kept then
    for place, index in ipairs(done) do
      redis.call('HDEL', KEPT, index .. '.ended', index .. '.usage')
      -- What a failed item has paid for, retry_failed may still use.
      if ended[place].status ~= 'failed' then
        redis.call('HDEL', KEPT, index)
      end
    end
  end
  for name, n in pairs(counts) do
    redis.call('HINCRBY', META, name, whole(n))
  end
  for name, n in pairs(per_shard) do
    per_shard[name] = redis.call('HINCRBY', SETTLED, name, n)
  end
  wake(EVENTS, events_kept, 'settled', #done)
  if any_firsts then
    let_go, twins = let_waiting_go(META, FIRSTS, DUE, done, now)
  end
end

-- One item of a shard tells, the last: one gather is enough.
local told = {}
for i = #answers, 1, -1 do
  local shard = shard_of[i]
  if answers[i] == 1 and not told[shard] then
    told[shard] = true
    local its = bounds(shard)
    if tonumber(per_shard[shard] or redis.call('HGET', SETTLED, shard) or 0) == its.stop - its.start then
      answers[i] = 2
    end
  end
end

-- Not by `fields`: here each microsecond counts.
local cut, total, again, window, first_window, last_size, most_items, shard_items, twins_left, a, b, c, d, status, alike_n,
  budget_tokens, budget_nanos, day_budget = unpack(redis.call('HMGET', META, 'next', 'total', 'again_items', 'window', 'first_window',
  'last_size', 'most_items', 'shard_items', 'twins', 'succeeded', 'failed', 'cancelled', 'expired', 'status', 'alike_n',
  'budget_tokens', 'budget_nanos', 'day_budget'))
local all, waits = (a or 0) + (b or 0) + (c or 0) + (d or 0), twins_left or 0

-- As in next_shard.lua: `waits` of the published items wait for one with the same input.
local function room(after, waits)
  local bound = (most_items or math.huge) - (shard_items or 1)
  return (cut or 0) - after - (again or 0) - waits <= math.min(window_items(window, first_window, last_size, after), bound)
end

if #done > 0 then
  pause_if_due(META, EVENTS, LEASES, events_kept, status, budget_tokens or budget_nanos or day_budget, tonumber(alike_limit), tonumber(alike_n or 0), ended, now)
  learn(STATS, META, ended, now)
end
-- Said once, when there is room and was no room before; the gathers and the sweep look as well.
local more = cut ~= total or tonumber(again or 0) > 0
table.insert(answers, more and room(all, waits) and not room(all - #done, waits + twins) and 1 or 0)
table.insert(answers, let_go)
return answers
