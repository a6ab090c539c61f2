-- next_shard(KEYS meta, shards, again; ARGV lease_ms, page_size, slow_us, task_us, most_items_per_task)
--   -> {shard, start, stop, items_per_task, items_per_slot, again} to publish now | {}: none
-- One publisher at a time, under a lease: if it dies, the next caller after the lease goes on, and
-- finds the shard cut as it was. A shard lies in one page and has at most `shard_tasks` tasks and
-- `shard_items` items. "auto": a task carries one item, unless the shards that are closed show that
-- items take less than slow_us; then it carries as many as take task_us together. Shards whose
-- failed items run again (again = 1) come first.
-- The window is counted in items without an outcome, so that a slow item holds up nothing but its
-- own shard. It opens as items end: what the first ones teach comes before the rest is cut. What waits
-- for an item with the same input (claim.lua) is not in it: it makes no call.
local meta = redis.call('HMGET', KEYS[1], 'status', 'total', 'published', 'next', 'publishing_until', 'item_us',
  'window', 'first_window', 'shard_tasks', 'shard_items', 'items_per_task', 'items_per_slot', 'last_size', 'again_items',
  'succeeded', 'failed', 'cancelled', 'expired', 'mode', 'away', 'twins', 'most_items')
if meta[1] ~= 'in_progress' then
  return {}
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if meta[5] and tonumber(meta[5]) > now then
  return {}
end
local total, published, start = tonumber(meta[2]), tonumber(meta[3]), tonumber(meta[4])
-- In provider mode shards are cut with the parts (part_extend): only what runs again is published.
if meta[19] == 'provider' then
  total = start
end
local size, done = tonumber(meta[13] or 1), 0
for i = 15, 18 do
  done = done + tonumber(meta[i] or 0)
end
local outstanding = start - done - tonumber(meta[14] or 0) - tonumber(meta[20] or 0) - tonumber(meta[21] or 0)
local window = math.min(tonumber(meta[7]), tonumber(meta[8]) + math.floor(done / size))
local waiting = redis.call('LLEN', KEYS[3])
-- Where items are bounded (max_concurrency), the last shard that is published before an item has ended
-- is cut as small as fills the bound.
local bound = tonumber(meta[22] or math.huge)
local filling = done == 0 and waiting == 0 and outstanding < bound
local bounded = outstanding + tonumber(meta[10]) > bound and not filling
if bounded or outstanding > (window - 1) * size or (start >= total and waiting == 0) then
  return {}
end
redis.call('HSET', KEYS[1], 'publishing_until', now + tonumber(ARGV[1]))
if waiting > 0 then
  local shard = string.match(redis.call('LINDEX', KEYS[3], 0), '^(%d+) ')
  local from, stop, per_task = string.match(redis.call('HGET', KEYS[2], shard), '^(%d+) (%d+) (%d+)$')
  return {tonumber(shard), tonumber(from), tonumber(stop), tonumber(per_task), tonumber(meta[12]), 1}
end
local cut = redis.call('HGET', KEYS[2], published)
if cut then
  local from, stop, per_task = string.match(cut, '^(%d+) (%d+) (%d+)$')
  return {published, tonumber(from), tonumber(stop), tonumber(per_task), tonumber(meta[12]), 0}
end
local per_task = tonumber(meta[11])
if not per_task then
  per_task = 1
  local us = tonumber(meta[6])
  if us and us < tonumber(ARGV[3]) then
    per_task = math.max(1, math.min(math.floor(tonumber(ARGV[4]) / math.max(us, 1)), tonumber(ARGV[5])))
  end
end
local page = tonumber(ARGV[2])
size = math.min(tonumber(meta[9]) * per_task, tonumber(meta[10]))
local stop = math.min(total, (math.floor(start / page) + 1) * page, start + math.min(size, bound - outstanding))
redis.call('HSET', KEYS[2], published, start .. ' ' .. stop .. ' ' .. per_task)
redis.call('HSET', KEYS[1], 'last_size', size)
return {published, start, stop, per_task, tonumber(meta[12]), 0}
