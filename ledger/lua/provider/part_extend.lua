-- part_extend(KEYS meta, shards, parts; ARGV part, start, stop, page_size) -> 1: the part reaches to stop | 0: the batch takes no new starts, or another has begun it elsewhere
-- A part is the items of one file at the provider, and a run of whole shards, which are cut here: a
-- shard never lies in two parts. What is cut counts as away until it is dealt (part_deal).
local meta = redis.call('HMGET', KEYS[1], 'status', 'next', 'published', 'shard_tasks', 'shard_items', 'items_per_task')
if meta[1] ~= 'in_progress' then
  return 0
end
local known = redis.call('HGET', KEYS[3], ARGV[1])
local start, stop, page = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local at, first, shard, begun = start, tonumber(meta[3]), tonumber(meta[3]), nil
if known then
  local from, to, its_first, its_next, its_begun = string.match(known, '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  if tonumber(from) ~= start then
    return 0
  end
  at, first, begun = tonumber(to), tonumber(its_first), its_begun
  if stop <= at then
    return 1
  end
end
-- Only the last part grows, and a new one begins where that has ended.
if tonumber(meta[2]) ~= at then
  return 0
end
local t = redis.call('TIME')
begun = begun or t[1] * 1000 + math.floor(t[2] / 1000)
local per_task = tonumber(meta[6]) or 1
local size = math.min(tonumber(meta[4]) * per_task, tonumber(meta[5]))
local from = at
while at < stop do
  local to = math.min(stop, (math.floor(at / page) + 1) * page, at + size)
  redis.call('HSET', KEYS[2], shard, at .. ' ' .. to .. ' ' .. per_task)
  at, shard = to, shard + 1
end
redis.call('HSET', KEYS[3], ARGV[1], table.concat({start, stop, first, shard, begun}, ' '))
redis.call('HSET', KEYS[1], 'next', stop, 'published', shard, 'last_size', size)
redis.call('HINCRBY', KEYS[1], 'away', stop - from)
return 1
