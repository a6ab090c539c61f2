-- put_off(KEYS runs, leases, kept, due; ARGV (index, token, wait_ms, counts)...) -> items put off
-- An attempt has ended without an outcome: the item gives its lease back and may be claimed again
-- once its time has come. That start has not cost a process, so it is counted as ended; with `counts` 0
-- it is not counted at all, as its provider was down.
local now, put_off = now_ms(), 0
for index, ours, wait_ms, counts in records() do
  local attempt, claimed, token = string.match(redis.call('HGET', RUNS, index) or '', '^(%d+) (%d+) (%S+)$')
  if token == ours then
    redis.call('HSET', RUNS, index, (attempt - 1 + counts) .. ' ' .. claimed .. ' waits')
    redis.call('ZREM', LEASES, index)
    if counts == '1' then
      redis.call('HINCRBY', KEPT, index .. '.ended', 1)
    end
    redis.call('ZADD', DUE, now + wait_ms, index)
    put_off = put_off + 1
  end
end
return put_off
