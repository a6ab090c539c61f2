-- ending: the one rule for the end of a batch; joined in front of scripts that say "uses: ending"
-- A batch has nothing left to do once each of its items has an outcome, unless retry_failed is about
-- to take outcomes away. It then ends by itself, paused or not: when the last of its shards is closed
-- it is `finalizing`, and the commit ends it. Nothing pauses or expires it any more.

local function ending_now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Return how many items have no outcome.
local function unfinished(meta)
  local counts = redis.call('HMGET', meta, 'total', 'succeeded', 'failed', 'cancelled', 'expired')
  local left = tonumber(counts[1] or 0)
  for i = 2, 5 do
    left = left - tonumber(counts[i] or 0)
  end
  return left
end

-- Return whether retry_failed is at work on the batch: it began, and its lease is alive.
local function is_retrying(meta)
  local till = redis.call('HGET', meta, 'retrying_until')
  return till and tonumber(till) > ending_now()
end

local function nothing_left(meta)
  return unfinished(meta) <= 0 and not is_retrying(meta)
end

-- Move a batch that has nothing left to do, and whose shards are all closed, to `finalizing`.
-- Return the status then, or nil if there is no such batch.
local function finalize_if_done(meta, events, events_kept)
  local found = redis.call('HMGET', meta, 'status', 'closed_items', 'total')
  local live = found[1] == 'in_progress' or found[1] == 'paused'
  if not live or found[2] ~= found[3] or not nothing_left(meta) then
    return found[1] or nil
  end
  redis.call('HDEL', meta, 'retrying_until')
  redis.call('HSET', meta, 'status', 'finalizing', 'finalizing_at', ending_now())
  redis.call('XADD', events, 'MAXLEN', '~', events_kept, '*', 'status', 'finalizing')
  return 'finalizing'
end

-- Return the status that a batch whose items all have an outcome ends with. A window that was over
-- but cost no item its outcome has expired nothing, unless the provider has items of it still.
local function final_status(meta)
  local found = redis.call('HMGET', meta, 'ends_as', 'expired', 'away')
  if found[1] == 'expired' and tonumber(found[2] or 0) == 0 and tonumber(found[3] or 0) == 0 then
    return 'completed'
  end
  return found[1] or 'completed'
end
