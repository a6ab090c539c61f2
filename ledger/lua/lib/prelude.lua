-- prelude: joined in front of every script
-- The names of a script's own keys and arguments are bound behind it, by its signature: META, shard,
-- records (ledger/core/scripts.py).

-- Return the server's time in milliseconds since 1970.
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Return the server's time in microseconds since 1970.
local function now_us()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

-- Return these fields of a hash as a table by name, texts; what is missing is nil.
local function fields(key, ...)
  local values, found = redis.call('HMGET', key, ...), {}
  for i = 1, #values do
    if values[i] then
      found[(select(i, ...))] = values[i]
    end
  end
  return found
end

-- Return whether each of two keys is there; most batches have neither, which is found in one call.
local function any_of(first, second)
  if redis.call('EXISTS', first, second) == 0 then
    return false, false
  end
  return redis.call('EXISTS', first) == 1, redis.call('EXISTS', second) == 1
end

-- Return a whole number as a text: by itself Lua writes large ones with an exponent.
local function whole(number)
  return string.format('%.0f', number)
end

-- Return an iterator over the arguments from `first` on, `size` of them at a time.
local function each(first, size)
  return function()
    local at = first - size
    return function()
      at = at + size
      if ARGV[at] then
        return unpack(ARGV, at, at + size - 1)
      end
    end
  end
end
