-- statistics: what a batch's statistics learn from the items that ended in one call
-- A few writes, however many items the call carries. The fields are drawn in
-- `batchord.ledger.storage.batch_stats`, which reads them.
local SLOTS, FIRST_WIDTH, CODES, FIRST_INDEXES, MEMORY, MOST_ATTEMPTS = 120, 1000, 50, 5, 30000, 10

-- Return the slot that is now, and the width of all; they grow twice as wide when a batch has outlasted them.
local function slot_at(stats, now, origin, width)
  local slot = math.max(0, math.floor((now - origin) / width))
  if slot < SLOTS then
    return slot, width
  end
  local factor = 2
  while math.floor(slot / factor) >= SLOTS do
    factor = factor * 2
  end
  for _, name in ipairs({'succeeded:', 'failed:'}) do
    local names, sums, flat = {}, {}, {}
    for n = 0, SLOTS - 1 do
      table.insert(names, name .. n)
    end
    for n, value in ipairs(redis.call('HMGET', stats, unpack(names))) do
      if value then
        local field = name .. math.floor((n - 1) / factor)
        sums[field] = (sums[field] or 0) + value
      end
    end
    redis.call('HDEL', stats, unpack(names))
    for field, n in pairs(sums) do
      table.insert(flat, field)
      table.insert(flat, n)
    end
    if #flat > 0 then
      redis.call('HSET', stats, unpack(flat))
    end
  end
  return math.floor(slot / factor), width * factor
end

-- Return the weight of attempts that ended lately, of which `ran` more have now, as it is recorded.
local function recent(before, now, origin, ran)
  local weight, at, since = string.match(before or '', '^(%S+) (%d+) (%d+)$')
  weight, at, since = tonumber(weight or 0), tonumber(at or origin), tonumber(since or origin)
  if now - at > 2 * MEMORY then
    -- Over which part of the silence these were made is unknown: the rate begins anew.
    weight, since = 0, now
  else
    weight = weight * math.exp(math.min(0, at - now) / MEMORY) + ran
  end
  return string.format('%.3f %.0f %.0f', weight, now, since)
end

-- Return the failures by error code with these added, as they are recorded.
local function with_failures(before, failed)
  local codes, distinct = cjson.decode(before or '{}'), 0
  for _ in pairs(codes) do
    distinct = distinct + 1
  end
  for _, item in ipairs(failed) do
    local code = item.code
    if not codes[code] and distinct >= CODES then
      code = '(other)'
    end
    if not codes[code] then
      codes[code], distinct = {0}, distinct + 1
    end
    local seen = codes[code]
    seen[1] = seen[1] + 1
    if #seen <= FIRST_INDEXES then
      table.insert(seen, tonumber(item.index))
    end
  end
  return cjson.encode(codes)
end

-- Add the items that ended: {status, code, index, attempt, ms}.
local function learn(stats, meta, ended, now)
  local numbers, ran, failed, restarts = {}, 0, {}, 0
  for _, item in ipairs(ended) do
    if item.status == 'succeeded' or item.status == 'failed' then
      -- Four buckets to an octave; math.log is the natural one.
      local bucket = 'ms:' .. math.floor(math.log(math.max(1, item.ms)) * 4 / math.log(2))
      numbers[bucket] = (numbers[bucket] or 0) + 1
      ran = ran + 1
      if tonumber(item.attempt) > 1 then
        local nth = 'attempt:' .. math.min(item.attempt, MOST_ATTEMPTS)
        numbers[nth] = (numbers[nth] or 0) + 1
      end
      if item.status == 'failed' then
        table.insert(failed, item)
      end
    end
    restarts = restarts + math.max(0, item.attempt - 1)
  end
  local known_origin, known_width, lately, codes = unpack(redis.call('HMGET', stats, 'origin', 'width', 'recent', 'codes'))
  local origin = tonumber(known_origin or redis.call('HGET', meta, 'in_progress_at') or now)
  local width = tonumber(known_width or FIRST_WIDTH)
  local slot, wider = slot_at(stats, now, origin, width)
  local new = {'recent', recent(lately, now, origin, ran)}
  if not known_origin or wider ~= width then
    new = {new[1], new[2], 'origin', whole(origin), 'width', whole(wider)}
  end
  if #failed > 0 then
    table.insert(new, 'codes')
    table.insert(new, with_failures(codes, failed))
    redis.call('HINCRBY', stats, 'failed:' .. slot, #failed)
  end
  redis.call('HSET', stats, unpack(new))
  if ran > #failed then
    redis.call('HINCRBY', stats, 'succeeded:' .. slot, ran - #failed)
  end
  if restarts > 0 then
    redis.call('HINCRBY', stats, 'restarts', restarts)
  end
  for name, n in pairs(numbers) do
    redis.call('HINCRBY', stats, name, n)
  end
end

-- Take failures out again whose items run once more: `moved` by code, `gone` by index. What was made
-- and how long it took stays counted.
local function unlearn(stats, moved, gone, count)
  local codes, left = cjson.decode(redis.call('HGET', stats, 'codes') or '{}'), {}
  for code, n in pairs(moved) do
    code = codes[code] and code or '(other)'
    if codes[code] then
      codes[code][1] = codes[code][1] - n
    end
  end
  for code, seen in pairs(codes) do
    if seen[1] > 0 then
      left[code] = {seen[1]}
      for i = 2, #seen do
        if not gone[seen[i]] then
          table.insert(left[code], seen[i])
        end
      end
    end
  end
  redis.call('HSET', stats, 'codes', cjson.encode(left))
  redis.call('HINCRBY', stats, 'retried', count)
end
