-- ending: the one rule for the end of a batch, and for its pause
-- A batch has nothing left to do once each of its items has an outcome, unless retry_failed is about
-- to take outcomes away. It then ends by itself, paused or not: when the last of its shards is closed
-- it is `finalizing`, and the commit ends it. Nothing pauses or expires it any more.

-- Return how many items have an outcome, of a table with the four counts.
local function ended_items(counts)
  return tonumber(counts.succeeded or 0) + tonumber(counts.failed or 0)
    + tonumber(counts.cancelled or 0) + tonumber(counts.expired or 0)
end

-- Return how many items have no outcome.
local function unfinished(meta)
  local counts = fields(meta, 'total', 'succeeded', 'failed', 'cancelled', 'expired')
  return tonumber(counts.total or 0) - ended_items(counts)
end

-- Return whether retry_failed is at work on the batch: it began, and its lease is alive.
local function is_retrying(meta)
  local till = redis.call('HGET', meta, 'retrying_until')
  return till and tonumber(till) > now_ms()
end

local function nothing_left(meta)
  return unfinished(meta) <= 0 and not is_retrying(meta)
end

-- Wake those who wait for news of the batch: its status has changed, or this many items are settled.
local function wake(events, events_kept, what, value)
  redis.call('XADD', events, 'MAXLEN', '~', events_kept, '*', what, value)
end

-- Move a batch that has nothing left to do, and whose shards are all closed, to `finalizing`.
-- Return the status then, or nil if there is no such batch.
local function finalize_if_done(meta, events, events_kept)
  local found = fields(meta, 'status', 'closed_items', 'total')
  local live = found.status == 'in_progress' or found.status == 'paused'
  if not live or found.closed_items ~= found.total or not nothing_left(meta) then
    return found.status
  end
  redis.call('HDEL', meta, 'retrying_until')
  redis.call('HSET', meta, 'status', 'finalizing', 'finalizing_at', now_ms())
  wake(events, events_kept, 'status', 'finalizing')
  return 'finalizing'
end

-- Return the status that a batch whose items all have an outcome ends with. A window that was over
-- but cost no item its outcome has expired nothing, unless the provider has items of it still.
local function final_status(meta)
  local found = fields(meta, 'ends_as', 'expired', 'away')
  if found.ends_as == 'expired' and tonumber(found.expired or 0) == 0 and tonumber(found.away or 0) == 0 then
    return 'completed'
  end
  return found.ends_as or 'completed'
end
