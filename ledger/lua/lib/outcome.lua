-- outcome: the head of an item's outcome, which is written here alone

-- Return the first fields of the JSON object, without its end; `duration_ms` nil: it was not running.
local function outcome_head(attempts, settled_ms, duration_ms)
  local head = string.format('{"attempts":%s,"settled_at":%.3f,', attempts, settled_ms / 1000)
  return duration_ms and head .. string.format('"duration":%.3f,', duration_ms / 1000) or head
end

-- Return whether a recorded outcome is this attempt's, and ends with this text.
local function is_outcome_of(recorded, attempts, text)
  local head = '{"attempts":' .. attempts .. ','
  return string.sub(recorded, 1, #head) == head and string.sub(recorded, -#text) == text
end
