-- part_extend(KEYS meta, shards, parts; ARGV part, start, stop, page_size) -> 1: the part reaches to stop | 0: the batch takes no new starts, or another has begun it elsewhere
-- A part is the items of one file at the provider, and a run of whole shards, which are cut here: a
-- shard never lies in two parts. What is cut counts as away until it is dealt (part_deal).
local meta = fields(META, 'status', 'next', 'published', 'shard_tasks', 'shard_items', 'items_per_task')
if meta.status ~= 'in_progress' then
  return 0
end
local known = redis.call('HGET', PARTS, part)
start, stop, page_size = tonumber(start), tonumber(stop), tonumber(page_size)
local at, first, shard, begun = start, tonumber(meta.published), tonumber(meta.published), nil
if known then
  local from, to, its_first, its_begun = string.match(known, '^(%d+) (%d+) (%d+) %d+ (%d+)$')
  if tonumber(from) ~= start then
    return 0
  end
  at, first, begun = tonumber(to), tonumber(its_first), its_begun
  if stop <= at then
    return 1
  end
end
-- Only the last part grows, and a new one begins where that has ended.
if tonumber(meta.next) ~= at then
  return 0
end
begun = begun or now_ms()
local per_task = tonumber(meta.items_per_task) or 1
local size = math.min(tonumber(meta.shard_tasks) * per_task, tonumber(meta.shard_items))
local from = at
while at < stop do
  local to = math.min(stop, (math.floor(at / page_size) + 1) * page_size, at + size)
  redis.call('HSET', SHARDS, shard, at .. ' ' .. to .. ' ' .. per_task)
  at, shard = to, shard + 1
end
redis.call('HSET', PARTS, part, table.concat({start, stop, first, shard, begun}, ' '))
redis.call('HSET', META, 'next', stop, 'published', shard, 'last_size', size)
redis.call('HINCRBY', META, 'away', stop - from)
return 1
