-- next_shard(KEYS meta, shards; ARGV lease_ms, page_size, slow_us, task_us, most_items_per_task, first_window)
--   -> {shard, start, stop, items_per_task, items_per_slot} to publish now | {}: none
-- One publisher at a time, under a lease: if it dies, the next caller after the lease goes on, and
-- finds the shard cut as it was. A shard lies in one page and has at most `shard_tasks` tasks and
-- `shard_items` items. "auto": a task carries one item, unless the shards that are closed show that
-- items take less than slow_us; then it carries as many as take task_us together.
local meta = redis.call('HMGET', KEYS[1], 'status', 'total', 'published', 'closed', 'next', 'publishing_until',
  'window', 'shard_tasks', 'shard_items', 'items_per_task', 'item_us', 'items_per_slot')
if meta[1] ~= 'in_progress' then
  return {}
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if meta[6] and tonumber(meta[6]) > now then
  return {}
end
local total, published, closed, start = tonumber(meta[2]), tonumber(meta[3]), tonumber(meta[4]), tonumber(meta[5])
-- The window opens as shards close: what the first ones teach comes before the rest is cut.
if start >= total or published - closed >= math.min(tonumber(meta[7]), tonumber(ARGV[6]) + closed) then
  return {}
end
redis.call('HSET', KEYS[1], 'publishing_until', now + tonumber(ARGV[1]))
local cut = redis.call('HGET', KEYS[2], published)
if cut then
  local from, stop, per_task = string.match(cut, '^(%d+) (%d+) (%d+)$')
  return {published, tonumber(from), tonumber(stop), tonumber(per_task), tonumber(meta[12])}
end
local per_task = tonumber(meta[10])
if not per_task then
  per_task = 1
  local us = tonumber(meta[11])
  if us and us < tonumber(ARGV[3]) then
    per_task = math.max(1, math.min(math.floor(tonumber(ARGV[4]) / math.max(us, 1)), tonumber(ARGV[5])))
  end
end
local page = tonumber(ARGV[2])
local stop = math.min(total, (math.floor(start / page) + 1) * page,
  start + math.min(tonumber(meta[8]) * per_task, tonumber(meta[9])))
redis.call('HSET', KEYS[2], published, start .. ' ' .. stop .. ' ' .. per_task)
return {published, start, stop, per_task, tonumber(meta[12])}
