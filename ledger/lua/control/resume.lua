-- resume(KEYS meta, events; ARGV events_kept, [budget_tokens or '', budget_nanos or ''])
--   -> the status now, 'over': the budget is used up, nothing is changed, or '' if there is no such batch
-- uses: ending
-- A budget that is given stands in for the batch's own, also while it runs.
-- Messages of items that were refused meanwhile are gone: the caller publishes them again.
local meta = redis.call('HMGET', KEYS[1], 'status', 'budget_tokens', 'budget_nanos',
  'usage.input_tokens', 'usage.output_tokens', 'usage.cost_nanos', 'usage.unpriced_requests',
  'usage.unmetered_requests')
local status = meta[1]
if status ~= 'paused' and status ~= 'in_progress' then
  return status or ''
end
local tokens, nanos = tonumber(ARGV[2] or meta[2] or ''), tonumber(ARGV[3] or meta[3] or '')
-- What has nothing left to do comes to its end, whatever it has used.
if unfinished(KEYS[1]) > 0 and (status == 'paused' or ARGV[2]) then
  if (tokens and tonumber(meta[4] or 0) + tonumber(meta[5] or 0) >= tokens) or (nanos and tonumber(meta[6] or 0) >= nanos) then
    return 'over'
  end
end
if ARGV[2] then
  redis.call('HDEL', KEYS[1], 'budget_tokens', 'budget_nanos')
  for i, field in ipairs({'budget_tokens', 'budget_nanos'}) do
    if ARGV[i + 1] ~= '' then
      redis.call('HSET', KEYS[1], field, ARGV[i + 1])
    end
  end
end
if status == 'paused' then
  status = 'in_progress'
  redis.call('HSET', KEYS[1], 'status', status)
  -- Someone has acted; whether that helped, the next items tell, as the first ones did.
  redis.call('HDEL', KEYS[1], 'reason', 'alike', 'alike_n')
  redis.call('HSET', KEYS[1], 'budget_unpriced', meta[7] or 0, 'budget_unmetered', meta[8] or 0)
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'status', status)
  status = finalize_if_done(KEYS[1], KEYS[2], ARGV[1])
end
return status
