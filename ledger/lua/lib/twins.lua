-- twins: items with the same input in a batch with dedupe (claim.lua), of which the first one runs
-- Those that wait for one item are a linked list in `firsts`: 'FIRST.wait' is its head, 'INDEX.next' its links.

-- Have an item wait for the outcome of `first`, which has the same input. It looks itself at `due_ms`.
local function wait_for(meta, firsts, due, first, index, due_ms)
  if redis.call('HSETNX', firsts, index .. '.same', first) == 1 then
    local head = redis.call('HGET', firsts, first .. '.wait')
    if head then
      redis.call('HSET', firsts, index .. '.next', head)
    end
    redis.call('HSET', firsts, first .. '.wait', index)
    redis.call('HINCRBY', meta, 'twins', 1)
  end
  redis.call('ZADD', due, due_ms, index)
end

-- Let the items go that wait for these settled ones: they are due now. As many at once as keep a call
-- short; each that is settled lets further ones go. Return 1 if any was let go, else 0, and how many of
-- the settled items had waited themselves.
local function let_waiting_go(meta, firsts, due, done, now)
  local let_go, twins, most = 0, 0, math.ceil(1000 / #done)
  for _, index in ipairs(done) do
    local first = redis.call('HGET', firsts, index .. '.same')
    if first then
      redis.call('HDEL', firsts, index .. '.same')
      twins = twins + 1
    end
    local list = (first or index) .. '.wait'
    local other, n = redis.call('HGET', firsts, list), 0
    while other and n < most do
      -- Not one that was claimed meanwhile, as it looked itself.
      redis.call('ZADD', due, 'XX', now, other)
      local following = redis.call('HGET', firsts, other .. '.next')
      redis.call('HDEL', firsts, other .. '.next')
      other, n, let_go = following, n + 1, 1
    end
    if other and n > 0 then
      redis.call('HSET', firsts, list, other)
    elseif n > 0 then
      redis.call('HDEL', firsts, list)
    end
  end
  if twins > 0 then
    redis.call('HINCRBY', meta, 'twins', -twins)
  end
  return let_go, twins
end
