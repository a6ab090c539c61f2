-- next_shard(KEYS meta, shards, again; ARGV lease_ms, page_size, slow_us, task_us, most_items_per_task)
--   -> {shard, start, stop, items_per_task, items_per_slot, again} to publish now | {}: none
-- uses: ending window
-- One publisher at a time, under a lease: if it dies, the next caller after the lease goes on, and
-- finds the shard cut as it was. A shard lies in one page and has at most `shard_tasks` tasks and
-- `shard_items` items. "auto": a task carries one item, unless the shards that are closed show that
-- items take less than slow_us; then it carries as many as take task_us together. Shards whose
-- failed items run again (again = 1) come first.
-- The window is counted in items without an outcome, so that a slow item holds up nothing but its
-- own shard. What waits for an item with the same input (claim.lua) is not in it: it makes no call.
local meta = fields(META, 'status', 'total', 'published', 'next', 'publishing_until', 'item_us', 'window', 'first_window',
  'shard_tasks', 'shard_items', 'items_per_task', 'items_per_slot', 'last_size', 'again_items', 'succeeded', 'failed',
  'cancelled', 'expired', 'mode', 'away', 'twins', 'most_items')
local now = now_ms()
if meta.status ~= 'in_progress' or tonumber(meta.publishing_until or 0) > now then
  return {}
end
local total, published, start = tonumber(meta.total), tonumber(meta.published), tonumber(meta.next)
-- In provider mode shards are cut with the parts (part_extend): only what runs again is published.
if meta.mode == 'provider' then
  total = start
end
local ended, waiting = ended_items(meta), redis.call('LLEN', AGAIN)
local outstanding = start - ended - tonumber(meta.again_items or 0) - tonumber(meta.away or 0) - tonumber(meta.twins or 0)
-- Where items are bounded (max_concurrency), the last shard that is published before an item has ended
-- is cut as small as fills the bound.
local bound = tonumber(meta.most_items or math.huge)
local filling = ended == 0 and waiting == 0 and outstanding < bound
local bounded = outstanding + tonumber(meta.shard_items) > bound and not filling
if bounded or outstanding > window_items(meta.window, meta.first_window, meta.last_size, ended) or (start >= total and waiting == 0) then
  return {}
end
redis.call('HSET', META, 'publishing_until', now + lease_ms)

-- Return the shard as it was cut, or nil.
local function cut_shard(shard, again)
  local from, stop, per_task = string.match(redis.call('HGET', SHARDS, shard) or '', '^(%d+) (%d+) (%d+)$')
  if from then
    return {tonumber(shard), tonumber(from), tonumber(stop), tonumber(per_task), tonumber(meta.items_per_slot), again}
  end
end
if waiting > 0 then
  return cut_shard(string.match(redis.call('LINDEX', AGAIN, 0), '^(%d+) '), 1)
end
local cut = cut_shard(published, 0)
if cut then
  return cut
end
local per_task = tonumber(meta.items_per_task)
if not per_task then
  per_task = 1
  local us = tonumber(meta.item_us)
  if us and us < tonumber(slow_us) then
    per_task = math.max(1, math.min(math.floor(tonumber(task_us) / math.max(us, 1)), tonumber(most_items_per_task)))
  end
end
local size = math.min(tonumber(meta.shard_tasks) * per_task, tonumber(meta.shard_items))
local page_end = (math.floor(start / page_size) + 1) * page_size
local stop = math.min(total, page_end, start + math.min(size, bound - outstanding))
redis.call('HSET', SHARDS, published, start .. ' ' .. stop .. ' ' .. per_task)
redis.call('HSET', META, 'last_size', size)
return {published, start, stop, per_task, tonumber(meta.items_per_slot), 0}
