-- settle(KEYS meta, outcomes, runs, leases, shards, settled, done, events, kept, stats, firsts, due;
--        ARGV events_kept, alike_limit, index, token, shard, attempt, status, code, outcome, busy_us, usage fields, usage field, n, ..., index, ...)
--   -> {answer, ..., room, let_go}, an answer for each item: 0: refused, another execution holds or has settled
--      it | 1: recorded | 2: recorded, and each item of its shard has an outcome now; and whether the
--      batch's window has room for another shard since this call
-- uses: ending
-- Usage is all that the item has used; what `keep` has counted of it is not counted again.
-- The items lie in one page. First write wins and nothing is ever written over: only the latest
-- claim's token is let through, and it is gone once the outcome is there. `outcome` begins
-- with a JSON object; the times are put in here. Each key is read and written once for all items.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local indexes, places = {}, {}
local i = 3
while i <= #ARGV do
  table.insert(indexes, ARGV[i])
  table.insert(places, i)
  i = i + 9 + 2 * tonumber(ARGV[i + 8])
end
local runs = redis.call('HMGET', KEYS[3], unpack(indexes))
local any_kept = redis.call('EXISTS', KEYS[9]) == 1
local answers, outcomes, done, ends, counts, per_shard = {}, {}, {}, {}, {}, {}

local function count(in_table, name, n)
  in_table[name] = (in_table[name] or 0) + n
end

local shards = {}
local function bounds(shard)
  if not shards[shard] then
    local start, stop = string.match(redis.call('HGET', KEYS[5], shard) or '', '^(%d+) (%d+) ')
    shards[shard] = {start = tonumber(start or 0), stop = tonumber(stop or 0)}
  end
  return shards[shard]
end

local function settle(item, at)
  local index, token, shard = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local status, outcome = ARGV[at + 4], ARGV[at + 6]
  local ours = string.sub(outcome, 2)
  if not runs[item] then
    -- The same outcome of the same attempt: this very call, repeated because its answer was lost.
    local settled = redis.call('HGET', KEYS[2], index)
    local same = settled and string.match(settled, '^{"attempts":(%d+),') == ARGV[at + 3]
    return same and string.sub(settled, -#ours) == ours and 1 or 0
  end
  local attempt, claimed, holder = string.match(runs[item], '^(%d+) (%d+) (%S+)$')
  local its = bounds(shard)
  -- Counted in a shard that is not its own, it would leave both open for good.
  if (holder ~= token and holder ~= token .. '!') or tonumber(index) < its.start or tonumber(index) >= its.stop then
    return 0
  end
  -- Once in a call, too.
  runs[item] = false
  table.insert(outcomes, index)
  table.insert(outcomes, string.format('{"attempts":%s,"settled_at":%.3f,"duration":%.3f,',
    attempt, now / 1000, (now - tonumber(claimed)) / 1000) .. ours)
  table.insert(done, index)
  table.insert(ends, {status = status, code = ARGV[at + 5], index = index, attempt = attempt, ms = now - tonumber(claimed)})
  count(counts, status, 1)
  count(per_shard, shard, 1)
  count(per_shard, shard .. '.us', ARGV[at + 7])
  local counted = any_kept and cjson.decode(redis.call('HGET', KEYS[9], index .. '.usage') or '{}') or {}
  for field = at + 9, at + 8 + 2 * ARGV[at + 8], 2 do
    local before = counted[string.sub(ARGV[field], 7)] or 0
    count(counts, ARGV[field], math.max(0, ARGV[field + 1] - before))
  end
  return 1
end

for item, at in ipairs(places) do
  answers[item] = settle(item, at)
end
if #done > 0 then
  redis.call('HSET', KEYS[2], unpack(outcomes))
  redis.call('HDEL', KEYS[3], unpack(done))
  redis.call('ZREM', KEYS[4], unpack(done))
  redis.call('RPUSH', KEYS[7], unpack(done))
  if any_kept then
    for place, index in ipairs(done) do
      redis.call('HDEL', KEYS[9], index .. '.ended', index .. '.usage')
      -- What a failed item has paid for, retry_failed may still use.
      if ends[place].status ~= 'failed' then
        redis.call('HDEL', KEYS[9], index)
      end
    end
  end
  for name, n in pairs(counts) do
    -- As a text: Lua would write a large number with an exponent.
    redis.call('HINCRBY', KEYS[1], name, string.format('%.0f', n))
  end
  for name, n in pairs(per_shard) do
    redis.call('HINCRBY', KEYS[6], name, n)
  end
  redis.call('XADD', KEYS[8], 'MAXLEN', '~', ARGV[1], '*', 'settled', #done)
end

-- Items with the same input have waited for these outcomes: they are due now (claim.lua). So many of
-- them, that no call is long; each that is settled lets further ones go.
local let_go, twins = 0, 0
if #done > 0 and redis.call('EXISTS', KEYS[11]) == 1 then
  local most = math.ceil(1000 / #done)
  for _, index in ipairs(done) do
    local first = redis.call('HGET', KEYS[11], index .. '.same')
    if first then
      redis.call('HDEL', KEYS[11], index .. '.same')
      twins = twins + 1
    end
    local list = (first or index) .. '.wait'
    local other, n = redis.call('HGET', KEYS[11], list), 0
    while other and n < most do
      -- Not one that was claimed meanwhile, as it looked itself.
      redis.call('ZADD', KEYS[12], 'XX', now, other)
      local following = redis.call('HGET', KEYS[11], other .. '.next')
      redis.call('HDEL', KEYS[11], other .. '.next')
      other, n, let_go = following, n + 1, 1
    end
    if other and n > 0 then
      redis.call('HSET', KEYS[11], list, other)
    elseif n > 0 then
      redis.call('HDEL', KEYS[11], list)
    end
  end
  if twins > 0 then
    redis.call('HINCRBY', KEYS[1], 'twins', -twins)
  end
end

-- One item of a shard tells, the last: one gather is enough.
local told = {}
for item = #answers, 1, -1 do
  local shard = ARGV[places[item] + 2]
  if answers[item] == 1 and not told[shard] then
    told[shard] = true
    local its = bounds(shard)
    if tonumber(redis.call('HGET', KEYS[6], shard) or 0) == its.stop - its.start then
      answers[item] = 2
    end
  end
end

local meta = redis.call('HMGET', KEYS[1], 'next', 'total', 'window', 'first_window', 'last_size', 'again_items',
  'succeeded', 'failed', 'cancelled', 'expired', 'status', 'alike', 'alike_n', 'budget_tokens', 'budget_nanos',
  'usage.input_tokens', 'usage.output_tokens', 'usage.cost_nanos', 'usage.unpriced_requests', 'budget_unpriced', 'in_progress_at', 'twins',
  'most_items', 'shard_items', 'usage.unmetered_requests', 'budget_unmetered')
local size, ended = tonumber(meta[5] or 1), 0
for i = 7, 10 do
  ended = ended + tonumber(meta[i] or 0)
end
local more = meta[1] ~= meta[2] or tonumber(meta[6] or 0) > 0

-- As in next_shard.lua: `waits` of the published items wait for one with the same input.
local function room(after, waits)
  local outstanding = tonumber(meta[1] or 0) - after - tonumber(meta[6] or 0) - waits
  local window = math.min(tonumber(meta[3] or 1), tonumber(meta[4] or 1) + math.floor(after / size))
  return outstanding <= math.min((window - 1) * size, tonumber(meta[23] or math.huge) - tonumber(meta[24] or 1))
end
local status = meta[11]
-- The reason is noted also where nothing is left to pause for: it tells why all have failed.
local function pause(code, message)
  redis.call('HSET', KEYS[1], 'reason', cjson.encode({code = code, message = message, origin = 'ledger'}))
  if unfinished(KEYS[1]) > 0 then
    status = 'paused'
    redis.call('HSET', KEYS[1], 'status', status)
    redis.call('XADD', KEYS[8], 'MAXLEN', '~', ARGV[1], '*', 'status', status)
  end
end
-- What is over its budget pauses, unless all that is left runs already: whoever set the budget would
-- gain nothing. It is looked at again with each settlement, and with each resume (resume.lua).
if #done > 0 and status == 'in_progress' and (meta[14] or meta[15]) then
  local tokens, nanos = tonumber(meta[16] or 0) + tonumber(meta[17] or 0), tonumber(meta[18] or 0)
  local over_tokens = meta[14] and tokens >= tonumber(meta[14])
  local over_nanos = meta[15] and nanos >= tonumber(meta[15])
  local unpriced = meta[15] and tonumber(meta[19] or 0) > tonumber(meta[20] or 0)
  local unmetered = meta[14] and tonumber(meta[25] or 0) > tonumber(meta[26] or 0)
  if (over_tokens or over_nanos or unpriced or unmetered) and tonumber(meta[2]) - ended > redis.call('ZCARD', KEYS[4]) then
    if over_tokens then
      pause('budget_exceeded', string.format('%.0f tokens are used, the budget is %.0f: resume with a larger one', tokens, meta[14]))
    elseif over_nanos then
      pause('budget_exceeded', string.format('$%.6g are spent, the budget is $%.6g: resume with a larger one', nanos / 1e9, meta[15] / 1e9))
    elseif unmetered then
      pause('usage_unknown', 'the budget is in tokens, and an answer of the provider tells none: have the server report usage and resume, or submit again without a budget')
    else
      pause('price_unknown', 'the budget is in dollars, and a call had no known price: list its model in BATCHORD_PRICES and start the workers again, or resume with a budget in tokens')
    end
  end
end
-- The first items of a batch, and those after a resume, are looked at: when they all fail alike, so
-- would the rest, and the batch pauses. `alike_n` is -1 once they do not.
local limit, alike, n = tonumber(ARGV[2]), meta[12], tonumber(meta[13] or 0)
if limit > 0 and n >= 0 and #ends > 0 then
  for _, one in ipairs(ends) do
    if one.status == 'failed' and n >= 0 and (not alike or alike == one.code) then
      alike, n = one.code, n + 1
    elseif one.status == 'failed' or one.status == 'succeeded' then
      n = -1
    end
  end
  if n ~= 0 then
    redis.call('HSET', KEYS[1], 'alike', alike or '', 'alike_n', n)
  end
  if n >= limit and status == 'in_progress' then
    pause(alike, 'the first ' .. n .. ' items have all failed with ' .. alike)
  end
end

-- What the batch's statistics learn from this call: a few writes, however many items it carries. The
-- fields are drawn in `batchord.ledger.storage.batch_stats`, which reads them.
local SLOTS, FIRST_WIDTH, CODES, FIRST_INDEXES, MEMORY, MOST_ATTEMPTS = 120, 1000, 50, 5, 30000, 10

-- The slot that is now; they grow twice as wide when a batch has outlasted them.
local function slot_of(origin, width)
  local slot = math.max(0, math.floor((now - origin) / width))
  if slot < SLOTS then
    return slot, width
  end
  local factor = 2
  while math.floor(slot / factor) >= SLOTS do
    factor = factor * 2
  end
  for _, name in ipairs({'succeeded:', 'failed:'}) do
    local fields, sums, flat = {}, {}, {}
    for n = 0, SLOTS - 1 do
      table.insert(fields, name .. n)
    end
    for n, value in ipairs(redis.call('HMGET', KEYS[10], unpack(fields))) do
      if value then
        count(sums, name .. math.floor((n - 1) / factor), tonumber(value))
      end
    end
    redis.call('HDEL', KEYS[10], unpack(fields))
    for field, n in pairs(sums) do
      table.insert(flat, field)
      table.insert(flat, n)
    end
    if #flat > 0 then
      redis.call('HSET', KEYS[10], unpack(flat))
    end
  end
  return math.floor(slot / factor), width * factor
end

local function learn()
  local numbers, ran, failed, restarts = {}, 0, {}, 0
  for _, one in ipairs(ends) do
    if one.status == 'succeeded' or one.status == 'failed' then
      -- Four buckets to an octave; math.log is the natural one.
      count(numbers, 'ms:' .. math.floor(math.log(math.max(1, one.ms)) * 4 / math.log(2)), 1)
      ran = ran + 1
      if tonumber(one.attempt) > 1 then
        count(numbers, 'attempt:' .. math.min(one.attempt, MOST_ATTEMPTS), 1)
      end
      if one.status == 'failed' then
        table.insert(failed, one)
      end
    end
    restarts = restarts + math.max(0, one.attempt - 1)
  end
  local known = redis.call('HMGET', KEYS[10], 'origin', 'width', 'recent', 'codes')
  local origin, width = tonumber(known[1] or meta[21] or now), tonumber(known[2] or FIRST_WIDTH)
  local slot, wider = slot_of(origin, width)
  local weight, at, since = string.match(known[3] or '', '^(%S+) (%d+) (%d+)$')
  weight, at, since = tonumber(weight or 0), tonumber(at or origin), tonumber(since or origin)
  if now - at > 2 * MEMORY then
    -- Nobody knows over which part of the silence these were made: the rate begins anew.
    weight, since = 0, now
  else
    weight = weight * math.exp(math.min(0, at - now) / MEMORY) + ran
  end
  local fields = {'recent', string.format('%.3f %.0f %.0f', weight, now, since)}
  if not known[1] or wider ~= width then
    fields = {fields[1], fields[2], 'origin', string.format('%.0f', origin), 'width', string.format('%.0f', wider)}
  end
  if #failed > 0 then
    local codes, distinct = cjson.decode(known[4] or '{}'), 0
    for _ in pairs(codes) do
      distinct = distinct + 1
    end
    for _, one in ipairs(failed) do
      local code = one.code
      if not codes[code] and distinct >= CODES then
        code = '(other)'
      end
      if not codes[code] then
        codes[code], distinct = {0}, distinct + 1
      end
      local seen = codes[code]
      seen[1] = seen[1] + 1
      if #seen <= FIRST_INDEXES then
        table.insert(seen, tonumber(one.index))
      end
    end
    table.insert(fields, 'codes')
    table.insert(fields, cjson.encode(codes))
    redis.call('HINCRBY', KEYS[10], 'failed:' .. slot, #failed)
  end
  redis.call('HSET', KEYS[10], unpack(fields))
  if ran > #failed then
    redis.call('HINCRBY', KEYS[10], 'succeeded:' .. slot, ran - #failed)
  end
  if restarts > 0 then
    redis.call('HINCRBY', KEYS[10], 'restarts', restarts)
  end
  for name, n in pairs(numbers) do
    redis.call('HINCRBY', KEYS[10], name, n)
  end
end

if #ends > 0 then
  learn()
end

-- Said once, when there is room and was none before; the gathers and the sweep look as well.
local waits = tonumber(meta[22] or 0)
table.insert(answers, more and room(ended, waits) and not room(ended - #done, waits + twins) and 1 or 0)
table.insert(answers, let_go)
return answers
