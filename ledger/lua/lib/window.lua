-- window: how many items of a batch may be published and without an outcome
-- It opens as items end: what the first ones teach comes before the rest is cut.

-- Return the most such items with which another shard may be published, once `ended` items have ended.
local function window_items(window, first_window, last_size, ended)
  local shards = math.min(window or 1, (first_window or 1) + math.floor(ended / (last_size or 1)))
  return (shards - 1) * (last_size or 1)
end
