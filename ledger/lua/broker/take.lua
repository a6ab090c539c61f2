-- take(KEYS unacked, unacked_index, lists...; ARGV messages, slots, now_s, queues)
--   -> {place of the list, tag or '', message, ...}
-- As many messages as wanted, until they fill as many slots as wanted (header `slots`, else one).
-- The lists stand in the order of priority; within each priority, `queues` of them are served by
-- turns. A message is popped and noted as unacknowledged in one step, so that no crash loses it.
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
slots = tonumber(slots)
for first = LISTS_AT, #KEYS, turns do
  local empty, turn = 0, 0
  while left > 0 and slots > 0 and empty < turns do
    local place = first + turn
    local message = redis.call('RPOP', KEYS[place])
    if message then
      local ok, tag, exchange, routing_key, its_slots = pcall(read, message)
      if ok and tag then
        redis.call('HSET', UNACKED, tag, '[' .. message .. ', ' .. exchange .. ', ' .. routing_key .. ']')
        redis.call('ZADD', UNACKED_INDEX, now_s, tag)
        slots = slots - its_slots
      else
        tag = ''
      end
      table.insert(taken, place - LISTS_AT)
      table.insert(taken, tag)
      table.insert(taken, message)
      left = left - 1
      empty = 0
    else
      empty = empty + 1
    end
    turn = (turn + 1) % turns
  end
end
return taken
