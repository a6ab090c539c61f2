-- end_page(KEYS meta, outcomes, runs, leases, done, events, due; ARGV events_kept, start, stop) -> items that still run
-- Gives each item of the page its outcome, `cancelled` or `expired` as the batch ends, unless it
-- has one or a worker holds it: that one is told to end it, and if it is dead its lease runs out.
local meta = redis.call('HMGET', KEYS[1], 'status', 'ends_as')
if not meta[2] or (meta[1] ~= 'cancelling' and meta[1] ~= 'finalizing') then
  return 0
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local indexes = {}
for index = tonumber(ARGV[2]), tonumber(ARGV[3]) - 1 do
  table.insert(indexes, index)
end
local settled = redis.call('HMGET', KEYS[2], unpack(indexes))
local runs = redis.call('HMGET', KEYS[3], unpack(indexes))
local running, outcomes, ended = 0, {}, {}
for i, index in ipairs(indexes) do
  if not settled[i] then
    local lease = runs[i] and redis.call('ZSCORE', KEYS[4], index)
    if lease and tonumber(lease) > now then
      running = running + 1
    else
      local attempts = runs[i] and string.match(runs[i], '^(%d+)') or '0'
      table.insert(outcomes, index)
      table.insert(outcomes, string.format('{"attempts":%s,"settled_at":%.3f,"status":"%s"}', attempts, now / 1000, meta[2]))
      table.insert(ended, index)
    end
  end
end
if #ended > 0 then
  redis.call('HSET', KEYS[2], unpack(outcomes))
  redis.call('HDEL', KEYS[3], unpack(ended))
  redis.call('ZREM', KEYS[4], unpack(ended))
  redis.call('ZREM', KEYS[7], unpack(ended))
  redis.call('RPUSH', KEYS[5], unpack(ended))
  redis.call('HINCRBY', KEYS[1], meta[2], #ended)
  redis.call('XADD', KEYS[6], 'MAXLEN', '~', ARGV[1], '*', 'settled', #ended)
end
return running
