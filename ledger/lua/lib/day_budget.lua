-- day_budget: what the batches of a tenant of `batchord serve` may cost in a day (UTC) together
-- The tenant's hash, which `meta` names as `day_budget`: the `day` since 1970, what was `spent` on it, the bound
-- `most` (none: no bound), both in billionths of a dollar, and `waits` if a batch was paused for it.

-- Return what was spent today, the bound or nil, and the day.
local function spent_today(budget, now)
  local known, today = fields(budget, 'day', 'spent', 'most'), math.floor(now / 86400000)
  return tonumber(known.day or 0) == today and tonumber(known.spent or 0) or 0, tonumber(known.most), today
end

-- Count what the batch has cost since this was last called, as of today. Return its tenant's hash, what was spent
-- today, and the bound or nil; nil if the batch counts in no day's budget.
local function count_cost(meta, now)
  local batch = fields(meta, 'day_budget', 'day_counted', 'usage.cost_nanos')
  if not batch.day_budget then
    return nil
  end
  local cost = tonumber(batch['usage.cost_nanos'] or 0)
  local new = math.max(0, cost - tonumber(batch.day_counted or 0))
  local spent, most, today = spent_today(batch.day_budget, now)
  if new > 0 then
    redis.call('HSET', batch.day_budget, 'day', today, 'spent', whole(spent + new))
    redis.call('HSET', meta, 'day_counted', whole(cost))
    -- A batch may be paused for long.
    redis.call('EXPIRE', batch.day_budget, 400 * 86400)
  end
  return batch.day_budget, spent + new, most
end
