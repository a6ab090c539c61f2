-- claim(KEYS meta, inputs, outcomes, runs, leases, kept, due, firsts, ids;
--       ARGV lease_ms, max_attempts, page_size, (index, token, how)...)
--   -> {chain or '', cache, config or '', answer, ...}, an answer for each index:
--      {'run', attempt, input, custom_id or '', [steps, usage]} | {'lost', attempt} | {'settled'} | {'held', ms, [first]} | {'stopped', status} | {'unknown'} | {'suspect'} |
--      {'same', attempt, outcome, first}
-- uses: twins
-- The items lie in one page. The attempt is counted before user code runs, so that one that kills
-- its process is counted too. `how` is 1 for alone, 2 for answered, 3 for both, else 0. Answered: the
-- provider's answer is there and paid for, so that it is claimed also if no new item starts.
-- 'lost': claimed as well, but it has cost too many processes: the caller settles it as failed.
-- 'suspect': held for the caller and not yet started, as this is its last start: it asks again, alone,
-- once nothing else runs in its process. What waits for its time (put_off.lua) is 'held'. In a batch
-- with dedupe, 'same' is yours and gets the outcome of the first item that has the same input; while
-- that one has none, it is 'held' with that first item, waits for it, and is out of the batch's window
-- (next_shard.lua). `steps` and `usage` are what earlier attempts have left (keep.lua).
-- Each key is read and written once for all items.
-- Not by `fields`: here each microsecond counts.
local known, chain, expires_at, dedupe, cache, config =
  unpack(redis.call('HMGET', META, 'status', 'chain', 'expires_at', 'dedupe', 'cache', 'config'))
local now, status = now_ms(), known
if known == 'in_progress' and expires_at and tonumber(expires_at) <= now then
  status = 'expired'
end
lease_ms, max_attempts = tonumber(lease_ms), tonumber(max_attempts)

local indexes, tokens, alone, answered = {}, {}, {}, {}
for index, token, how in records() do
  table.insert(indexes, index)
  table.insert(tokens, token)
  table.insert(alone, how % 2 == 1)
  table.insert(answered, how >= '2')
end
local inputs = redis.call('HMGET', INPUTS, unpack(indexes))
local outcomes = redis.call('HMGET', OUTCOMES, unpack(indexes))
local runs = redis.call('HMGET', RUNS, unpack(indexes))
local ids = redis.call('HMGET', IDS, unpack(indexes))
local new_runs, new_leases, taken = {}, {}, {}
local any_kept, any_due = any_of(KEPT, DUE)

local function hold(i, attempt, token)
  taken[indexes[i]] = true
  table.insert(new_runs, indexes[i])
  table.insert(new_runs, attempt .. ' ' .. now .. ' ' .. token)
  table.insert(new_leases, now + lease_ms)
  table.insert(new_leases, indexes[i])
end

-- The item that has the same input, if it is another one, and its outcome if there is one.
local function first_of(i)
  local name = redis.sha1hex(inputs[i])
  local first = redis.call('HGET', FIRSTS, name)
  if not first or first == indexes[i] then
    redis.call('HSET', FIRSTS, name, indexes[i])
    return nil
  end
  -- It may lie in another page: its key differs in the number at the end.
  local outcomes_of = string.gsub(OUTCOMES, '%d+$', math.floor(first / page_size))
  return first, redis.call('HGET', outcomes_of, first)
end

local function claim(i)
  if not known or not inputs[i] then
    return {'unknown'}
  elseif outcomes[i] then
    return {'settled'}
  elseif status ~= 'in_progress' and not answered[i] then
    return {'stopped', status}
  elseif taken[indexes[i]] then
    -- In this very call: its message was delivered twice, to one process.
    return {'held', lease_ms}
  end
  local first, outcome = nil, nil
  if dedupe then
    first, outcome = first_of(i)
  end
  local attempt, token = 0, nil
  if runs[i] then
    attempt, token = string.match(runs[i], '^(%d+) %d+ (%S+)$')
    attempt = tonumber(attempt)
  end
  -- The same token: this very call, repeated because its answer was lost.
  if token ~= tokens[i] then
    -- With a question mark it is held, and not started; with an exclamation mark it is lost.
    local lost = token == tokens[i] .. '!'
    local ours = lost or token == tokens[i] .. '?'
    local due = any_due and redis.call('ZSCORE', DUE, indexes[i])
    if due and tonumber(due) > now then
      return {'held', tonumber(due) - now}
    end
    local lease = runs[i] and not ours and redis.call('ZSCORE', LEASES, indexes[i])
    if lease and tonumber(lease) > now then
      return {'held', tonumber(lease) - now}
    end
    if first and not outcome then
      -- That item lets this one go when it has its outcome (settle.lua).
      wait_for(META, FIRSTS, DUE, first, indexes[i], now + lease_ms)
      return {'held', lease_ms, first}
    elseif first then
      hold(i, attempt + 1, tokens[i])
      return {'same', attempt + 1, outcome, first}
    end
    -- Starts that came to no end: each has cost a process.
    local strikes = attempt - (any_kept and tonumber(redis.call('HGET', KEPT, indexes[i] .. '.ended') or 0) or 0)
    if strikes > 0 and strikes == max_attempts - 1 and not alone[i] then
      hold(i, attempt, tokens[i] .. '?')
      return {'suspect'}
    end
    if lost or strikes >= max_attempts then
      hold(i, attempt, tokens[i] .. '!')
      return {'lost', attempt}
    end
    attempt = attempt + 1
  end
  hold(i, attempt, tokens[i])
  if first and outcome then
    return {'same', attempt, outcome, first}
  end
  if any_kept then
    local kept = redis.call('HMGET', KEPT, indexes[i], indexes[i] .. '.usage')
    return {'run', attempt, inputs[i], ids[i] or '', kept[1] or '', kept[2] or ''}
  end
  return {'run', attempt, inputs[i], ids[i] or ''}
end

local answers = {chain or '', cache and 1 or 0, config or ''}
for i = 1, #indexes do
  table.insert(answers, claim(i))
end
if #new_runs > 0 then
  redis.call('HSET', RUNS, unpack(new_runs))
  redis.call('ZADD', LEASES, unpack(new_leases))
  if any_due then
    for i = 1, #new_runs, 2 do
      redis.call('ZREM', DUE, new_runs[i])
    end
  end
end
return answers
