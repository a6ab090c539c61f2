-- take(KEYS unacked, unacked_index, queue list...; ARGV messages, slots, now_s, queues) -> {place of the list, message, ...}
-- As many messages as wanted, until they fill as many slots as wanted (header `slots`, else one).
-- The lists stand in the order of priority; within each priority, `queues` of them are served by
-- turns. A message is popped and noted as unacknowledged in one step, so that no crash loses it.
local taken, left, slots, turns = {}, tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
for first = 3, #KEYS, turns do
  local empty = 0
  local turn = 0
  while left > 0 and slots > 0 and empty < turns do
    local place = first + turn
    local message = redis.call('RPOP', KEYS[place])
    if message then
      local decoded = cjson.decode(message)
      local headers, properties = decoded['headers'] or {}, decoded['properties']
      local tag, to = properties['delivery_tag'], properties['delivery_info']
      redis.call('HSET', KEYS[1], tag, string.format('[%s, %s, %s]',
        message, cjson.encode(to['exchange']), cjson.encode(to['routing_key'])))
      redis.call('ZADD', KEYS[2], ARGV[3], tag)
      table.insert(taken, place - 3)
      table.insert(taken, message)
      left = left - 1
      slots = slots - (tonumber(headers['slots']) or 1)
      empty = 0
    else
      empty = empty + 1
    end
    turn = (turn + 1) % turns
  end
end
return taken
