-- end_page(KEYS meta, outcomes, runs, leases, done, events, due; ARGV events_kept, start, stop) -> items that still run
-- uses: ending outcome
-- Gives each item of the page its outcome, `cancelled` or `expired` as the batch ends, unless it
-- has one or a worker holds it: that one is told to end it, and if it is dead its lease runs out.
local meta = fields(META, 'status', 'ends_as')
if not meta.ends_as or (meta.status ~= 'cancelling' and meta.status ~= 'finalizing') then
  return 0
end
local now, indexes = now_ms(), {}
for index = tonumber(start), tonumber(stop) - 1 do
  table.insert(indexes, index)
end
local settled = redis.call('HMGET', OUTCOMES, unpack(indexes))
local runs = redis.call('HMGET', RUNS, unpack(indexes))
local running, outcomes, ended = 0, {}, {}
for i, index in ipairs(indexes) do
  if not settled[i] then
    local lease = runs[i] and redis.call('ZSCORE', LEASES, index)
    if lease and tonumber(lease) > now then
      running = running + 1
    else
      local attempts = runs[i] and string.match(runs[i], '^(%d+)') or '0'
      table.insert(outcomes, index)
      table.insert(outcomes, outcome_head(attempts, now) .. '"status":"' .. meta.ends_as .. '"}')
      table.insert(ended, index)
    end
  end
end
if #ended > 0 then
  redis.call('HSET', OUTCOMES, unpack(outcomes))
  redis.call('HDEL', RUNS, unpack(ended))
  redis.call('ZREM', LEASES, unpack(ended))
  redis.call('ZREM', DUE, unpack(ended))
  redis.call('RPUSH', DONE, unpack(ended))
  redis.call('HINCRBY', META, meta.ends_as, #ended)
  wake(EVENTS, events_kept, 'settled', #ended)
end
return running
