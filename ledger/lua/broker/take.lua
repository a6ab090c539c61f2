-- take(KEYS unacked, unacked_index, lists...; ARGV messages, slots, now_s, queues, [first_tag], [first_note])
--   -> {place of the list, tag or '', message, ...}
-- As many messages as wanted, until they fill as many slots as wanted (header `slots`, else one).
-- The lists stand in the order of priority; within each priority, `queues` of them are served by
-- turns. A message is popped and noted as unacknowledged in one step, so that no crash loses it; so
-- is `first_tag`, which was popped before.
-- What is no message has no tag and is not noted: an error here would lose what was popped before.

-- The tag of a message, where it came to, and its slots; nothing if it is not a message.
local function read(message)
  local decoded = cjson.decode(message)
  local headers, properties = decoded['headers'], decoded['properties']
  local tag, to, its_slots = properties['delivery_tag'], properties['delivery_info'], headers['slots'] or 1
  if type(tag) == 'string' and type(to['exchange']) == 'string' and type(to['routing_key']) == 'string'
    and type(its_slots) == 'number' and its_slots >= 1 then
    return tag, cjson.encode(to['exchange']), cjson.encode(to['routing_key']), its_slots
  end
end

local taken, left, turns = {}, tonumber(messages), tonumber(queues)
local notes, index, broken = {first_tag, first_note}, {first_tag and now_s, first_tag}, nil
slots = tonumber(slots)

-- Pop a message of a list; nothing if it is empty.
local function pop(place)
  local message = redis.pcall('RPOP', KEYS[place])
  if type(message) == 'table' then
    -- The key is no list. Raised at once, what was popped before would not be noted.
    broken, left = message, 0
    return
  elseif not message then
    return
  end
  local ok, tag, exchange, routing_key, its_slots = pcall(read, message)
  if ok and tag then
    table.insert(notes, tag)
    table.insert(notes, '[' .. message .. ', ' .. exchange .. ', ' .. routing_key .. ']')
    table.insert(index, now_s)
    table.insert(index, tag)
    slots = slots - its_slots
  else
    tag = ''
  end
  table.insert(taken, place - LISTS_AT)
  table.insert(taken, tag)
  table.insert(taken, message)
  left = left - 1
  return true
end

for first = LISTS_AT, #KEYS, turns do
  local open = {}
  for turn = 0, turns - 1 do
    table.insert(open, first + turn)
  end
  while #open > 0 and left > 0 and slots > 0 do
    -- Nothing comes into a list meanwhile: an empty one is not looked at again.
    local still = {}
    for _, place in ipairs(open) do
      if left > 0 and slots > 0 and pop(place) then
        table.insert(still, place)
      end
    end
    open = still
  end
end
if #notes > 0 then
  redis.call('HSET', UNACKED, unpack(notes))
  redis.call('ZADD', UNACKED_INDEX, unpack(index))
end
return broken or taken
