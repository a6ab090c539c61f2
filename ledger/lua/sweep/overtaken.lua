-- overtaken(KEYS meta, outcomes, runs, shards, settled, due; ARGV shard, lease_ms) -> {index, ...} to publish again now
-- Items of an open shard that nobody has ever claimed, though later ones were begun at least a lease
-- ago: a worker may have died with their messages in hand. Their messages may also just wait, so
-- that each time the same first item is still waiting, twice as long passes until the next.
local start, stop = string.match(redis.call('HGET', SHARDS, shard) or '', '^(%d+) (%d+) ')
local meta = fields(META, 'status', 'published', 'overtaken')
if meta.status ~= 'in_progress' or not start then
  return {}
end
start, stop = tonumber(start), tonumber(stop)

-- Whether a later shard has been begun: it is closed, or an item of it has ended.
local function later_begun()
  for later = shard + 1, meta.published - 1 do
    local settled = redis.call('HGET', SETTLED, later)
    if settled and settled ~= '0' then
      return true
    end
  end
  return false
end

local unclaimed, frontier = {}, later_begun() and stop or start
for index = start, stop - 1 do
  if redis.call('HEXISTS', OUTCOMES, index) == 1 or redis.call('HEXISTS', RUNS, index) == 1 then
    frontier = math.max(frontier, index)
  elseif not redis.call('ZSCORE', DUE, index) then
    table.insert(unclaimed, index)
  end
end
local overtaken = {}
for _, index in ipairs(unclaimed) do
  if index < frontier then
    table.insert(overtaken, index)
  end
end
if #overtaken == 0 then
  redis.call('HDEL', META, 'overtaken')
  return {}
end

local now = now_ms()
local first, times, since = string.match(meta.overtaken or '', '^(%d+) (%d+) (%d+)$')
if tonumber(first) ~= overtaken[1] then
  redis.call('HSET', META, 'overtaken', overtaken[1] .. ' 0 ' .. now)
elseif now - since >= lease_ms * 2 ^ times then
  redis.call('HSET', META, 'overtaken', first .. ' ' .. (times + 1) .. ' ' .. now)
  return overtaken
end
return {}
