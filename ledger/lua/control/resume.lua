-- resume(KEYS meta, events; ARGV events_kept, [budget_tokens], [budget_nanos])
--   -> the status now, 'over': the budget is used up, nothing is changed, 'over_day': its tenant's of today is, or ''
--      if there is no such batch
-- uses: ending day_budget
-- A budget that is given ('': without that bound) stands in for the batch's own, also while it runs.
-- Messages of items that were refused meanwhile are gone: the caller publishes them again.
local meta = fields(META, 'status', 'budget_tokens', 'budget_nanos', 'usage.input_tokens', 'usage.output_tokens',
  'usage.cost_nanos', 'usage.unpriced_requests', 'usage.unmetered_requests', 'day_budget')
local status, given = meta.status, budget_tokens ~= nil
if status ~= 'paused' and status ~= 'in_progress' then
  return status or ''
end
local tokens, nanos = tonumber(budget_tokens or meta.budget_tokens), tonumber(budget_nanos or meta.budget_nanos)
-- What has nothing left to do comes to its end, whatever it has used.
if unfinished(META) > 0 and (status == 'paused' or given) then
  local used = tonumber(meta['usage.input_tokens'] or 0) + tonumber(meta['usage.output_tokens'] or 0)
  if (tokens and used >= tokens) or (nanos and tonumber(meta['usage.cost_nanos'] or 0) >= nanos) then
    return 'over'
  end
  if meta.day_budget then
    local spent, most = spent_today(meta.day_budget, now_ms())
    if most and spent >= most then
      return 'over_day'
    end
  end
end
if given then
  redis.call('HDEL', META, 'budget_tokens', 'budget_nanos')
  for field, value in pairs({budget_tokens = budget_tokens, budget_nanos = budget_nanos}) do
    if value ~= '' then
      redis.call('HSET', META, field, value)
    end
  end
end
if status == 'paused' then
  status = 'in_progress'
  redis.call('HSET', META, 'status', status)
  -- Someone has acted; whether that helped, the next items tell, as the first ones did.
  redis.call('HDEL', META, 'reason', 'alike', 'alike_n')
  redis.call('HSET', META, 'budget_unpriced', meta['usage.unpriced_requests'] or 0,
    'budget_unmetered', meta['usage.unmetered_requests'] or 0)
  wake(EVENTS, events_kept, 'status', status)
  status = finalize_if_done(META, EVENTS, events_kept)
end
return status
