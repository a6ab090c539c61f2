-- breaker(KEYS health; ARGV what, begun_us, done_us, who, trip, wait_us, most_us, lease_us)
--   -> {open, streak, failing_us, begun_us, left_us, probe, closed_us, down_us}, as `batchord.chains.ratelimit.circuit_breaker.Health` has it; -1: never
-- `what` is look, failed, failed-probe or probe. `begun_us` and `done_us` are ages of the caller's last success: since
-- the call began that began last, and since a call was last answered; -1: none.
-- Failures of distinct `who` ('': each) that no answer came between are counted; `trip` of them (0: never) open
-- the breaker. It is closed by a success that began after the first of them. While it is open, one call
-- at a time is let through, under a lease, once `left_us` is over; each that fails doubles the wait.
trip = tonumber(trip)
local now, wait, most = now_us(), tonumber(wait_us), tonumber(most_us)
local state = fields(HEALTH, 'since', 'streak', 'who', 'begun', 'until', 'level', 'probe', 'done', 'last', 'down', 'closed')
local since, streak, seen = tonumber(state.since or 0), tonumber(state.streak or 0), state.who or ''
local begun, open_until = tonumber(state.begun or 0), tonumber(state['until'] or 0)
local level, probe, done = tonumber(state.level or 0), tonumber(state.probe or 0), tonumber(state.done or 0)

local function at(age)
  return tonumber(age) < 0 and 0 or now - tonumber(age)
end
begun, done = math.max(begun, at(begun_us)), math.max(done, at(done_us))
local last = tonumber(state.last or 0)
-- Failures that are a minute apart are no row.
local over = level == 0 and (done > since or now - last > 60000000) or level > 0 and begun > since
local down, closed = tonumber(state.down or 0), tonumber(state.closed or 0)
if since > 0 and over then
  down, closed = level > 1 and now or down, level > 0 and now or closed
  since, streak, seen, open_until, level, probe = 0, 0, '', 0, 0, 0
end
if what == 'failed' or what == 'failed-probe' then
  if since == 0 then
    since = now
  end
  last = now
  if who == '' then
    streak = streak + 1
  elseif not string.find(seen, ' ' .. who .. ' ', 1, true) then
    streak = streak + 1
    if #seen < 1000 then
      seen = (seen == '' and ' ' or seen) .. who .. ' '
    end
  end
  if level > 0 and what == 'failed-probe' then
    level, probe = level + 1, 0
    open_until = now + math.min(most, wait * 2 ^ math.min(level - 1, 30))
  elseif level == 0 and trip > 0 and streak >= trip then
    level, open_until = 1, now + wait
  end
end
local granted = 0
if what == 'probe' and level > 0 and open_until <= now and probe <= now then
  granted, probe = 1, now + lease_us
end
redis.call('HSET', HEALTH, 'since', whole(since), 'streak', streak, 'who', seen,
  'begun', whole(begun), 'done', whole(done),
  'last', whole(last), 'until', whole(open_until),
  'level', level, 'probe', whole(probe), 'down', whole(down), 'closed', whole(closed))
redis.call('PEXPIRE', HEALTH, 7200000)
-- While another one probes, its end is waited for.
local left = math.max(0, (granted == 1 and 0 or math.max(open_until, probe)) - now)
return {level > 0 and 1 or 0, streak, since > 0 and now - since or -1, begun > 0 and now - begun or -1, left, granted,
  closed > 0 and now - closed or -1, down > 0 and now - down or -1}
