-- pausing: the circuit breaker of a batch, which pauses it as its items end
-- uses: ending day_budget

-- Note why, and pause the batch. The reason is noted also where nothing is left to pause for: it
-- tells why all items have failed. Return the status then.
local function pause_for(meta, events, events_kept, code, message)
  redis.call('HSET', meta, 'reason', cjson.encode({code = code, message = message, origin = 'ledger'}))
  if unfinished(meta) <= 0 then
    return 'in_progress'
  end
  redis.call('HSET', meta, 'status', 'paused')
  wake(events, events_kept, 'status', 'paused')
  return 'paused'
end

-- Return a code and a message if the batch is over its budget, or it is unknown whether it is.
local function over_budget(meta)
  local most_tokens, most_nanos = tonumber(meta.budget_tokens), tonumber(meta.budget_nanos)
  local tokens = tonumber(meta['usage.input_tokens'] or 0) + tonumber(meta['usage.output_tokens'] or 0)
  local nanos = tonumber(meta['usage.cost_nanos'] or 0)
  local unmetered = tonumber(meta['usage.unmetered_requests'] or 0) > tonumber(meta.budget_unmetered or 0)
  local unpriced = tonumber(meta['usage.unpriced_requests'] or 0) > tonumber(meta.budget_unpriced or 0)
  if most_tokens and tokens >= most_tokens then
    return 'budget_exceeded', string.format('%.0f tokens are used, the budget is %.0f: resume with a larger one', tokens, most_tokens)
  elseif most_nanos and nanos >= most_nanos then
    return 'budget_exceeded', string.format('$%.6g are spent, the budget is $%.6g: resume with a larger one', nanos / 1e9, most_nanos / 1e9)
  elseif most_tokens and unmetered then
    return 'usage_unknown', 'the budget is in tokens, and an answer of the provider tells none: have the server report usage and resume, or submit again without a budget'
  elseif (most_nanos or meta.most_of_day) and unpriced then
    return 'price_unknown', 'the budget is in dollars, and a call had no known price: list its model in BATCHORD_PRICES and start the workers again, or resume with a budget in tokens'
  end
end

-- Return the error code that the first items have all failed with, and their number (-1: not all have),
-- given both from before.
-- The first items of a batch, and those after a resume, are looked at: when they all fail alike, so
-- would the rest.
local function failed_alike(alike, n, ended)
  for _, item in ipairs(ended) do
    if n >= 0 and item.status == 'failed' and (not alike or alike == item.code) then
      alike, n = item.code, n + 1
    elseif item.status == 'failed' or item.status == 'succeeded' then
      n = -1
    end
  end
  return alike, n
end

-- Pause the batch if the items that ended show that it must not go on.
-- What is over its budget, or its tenant over the day's, pauses, unless all that is left runs already: a pause
-- would gain nothing. It is looked at again with each settlement, and with each resume (resume.lua).
local function pause_if_due(meta, events, leases, events_kept, status, any_budget, alike_limit, n, ended, now)
  local day_budget, spent, most
  if any_budget then
    day_budget, spent, most = count_cost(meta, now)
  end
  if status == 'in_progress' and any_budget then
    local used = fields(meta, 'budget_tokens', 'budget_nanos', 'budget_unpriced', 'budget_unmetered', 'usage.input_tokens',
      'usage.output_tokens', 'usage.cost_nanos', 'usage.unpriced_requests', 'usage.unmetered_requests')
    used.most_of_day = most
    local code, message = over_budget(used)
    if not code and most and spent >= most then
      code, message = 'day_budget_exceeded', string.format(
        '$%.6g are spent today by the batches of this key, which may cost $%.6g a day: it goes on by itself tomorrow (UTC)', spent / 1e9, most / 1e9)
    end
    if code and unfinished(meta) > redis.call('ZCARD', leases) then
      status = pause_for(meta, events, events_kept, code, message)
      if code == 'day_budget_exceeded' then
        redis.call('HSET', day_budget, 'waits', 1)
      end
    end
  end
  if alike_limit > 0 and n >= 0 then
    local alike
    alike, n = failed_alike(n > 0 and redis.call('HGET', meta, 'alike'), n, ended)
    if n ~= 0 then
      redis.call('HSET', meta, 'alike', alike or '', 'alike_n', n)
    end
    if n >= alike_limit and status == 'in_progress' then
      pause_for(meta, events, events_kept, alike, 'the first ' .. n .. ' items have all failed with ' .. alike)
    end
  end
end
