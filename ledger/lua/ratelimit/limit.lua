-- limit(KEYS rates, places; ARGV rpm, tpm, concurrency, holder, held, correction, era, due, pending,
--       burst_us, reach_us, most_us, poll_us, hungry_us, lease_us, ramps, answered, full, youngest_us, recovered, refused_us, costs...)
--   -> {era, cooling_us, started, again_us, flying, bound, wait_us, ...}, as `batchord.chains.ratelimit.limits.ReserveAnswer` has it; bound -1: any number
-- uses: found
-- `ramps`: few calls at first. `answered` to `refused_us` are what `batchord.chains.ratelimit.found_limits.News` has, with the
-- ages of refused calls behind commas.
-- Settles what has ended and reserves for what is next. 0: no such limit. The rates are kept as GCRA:
-- the time at which all that was reserved will have been earned, for requests and for tokens.
-- What is in flight is an absolute number for each holder, under a lease: a repeated call counts no
-- call twice, and what a dead holder held comes back. A repeated correction of tokens is made twice.
local now = now_us()
rpm, tpm, concurrency, held, correction = tonumber(rpm), tonumber(tpm), tonumber(concurrency), tonumber(held), tonumber(correction)
era, due, pending = tonumber(era), tonumber(due), tonumber(pending)
local burst, reach, most = tonumber(burst_us), tonumber(reach_us), tonumber(most_us)

local refusals = {}
for age in string.gmatch(refused_us, '%d+') do
  table.insert(refusals, tonumber(age) / 1000)
end

local state = fields(RATES, 'requests', 'tokens', 'cool', 'paced')
local requests, tokens, cool = tonumber(state.requests or 0), tonumber(state.tokens or 0), tonumber(state.cool or 0)
local per_request = rpm > 0 and 60000000 / rpm or 0
local per_token = tpm > 0 and 60000000 / tpm or 0
if correction > 0 then
  tokens = math.max(tokens, now)
end
tokens = tokens + correction * per_token

-- How many are in flight; and the fewest that any other holder has who has asked in vain.
local now_ms = math.floor(now / 1000)
local found = found_load(RATES, now_ms)
local flying, fewest = held, math.huge
local counts = concurrency > 0 or ramps == '1' or found.flight.value > 0 or #refusals > 0
if counts then
  local places = redis.call('HGETALL', PLACES)
  for i = 1, #places, 2 do
    if places[i] ~= holder then
      local its, alive, hungry = string.match(places[i + 1], '^(%d+) (%d+) (%d+)$')
      if tonumber(alive) <= now then
        redis.call('HDEL', PLACES, places[i])
      else
        flying = flying + its
        if tonumber(hungry) > now then
          fewest = math.min(fewest, tonumber(its))
        end
      end
    end
  end
end

local news = {refused = refusals, answered = tonumber(answered), full = tonumber(full),
  youngest = tonumber(youngest_us) / 1000, recovered = recovered == '1'}
local paced = math.max(tonumber(state.paced or 0), now + 1000 * found_take(found, news, flying, now_ms))
local gap = found.pace.value > 0 and 1000000 / found.pace.value or 0
local bound = math.min(found_allowed(found, ramps == '1', now_ms), concurrency > 0 and concurrency or math.huge)
local free = bound - flying

-- A free place is for those first who have fewer.
local function start()
  if free < 1 or held > fewest then
    return false
  end
  free, held, flying = free - 1, held + 1, flying + 1
  return true
end

-- When a call may go that costs so much: one above the burst may be owed.
local function earliest(earned, cost)
  return earned - math.max(0, math.max(burst, cost) - cost)
end

local answer = {cool, math.max(0, cool - now), 0, tonumber(poll_us), 0, bound < math.huge and bound or -1}
local refused = false
if cool <= now then
  if era ~= cool then
    due, pending = 0, 0
  end
  while answer[3] < due and not refused do
    refused = not start()
    answer[3] = answer[3] + (refused and 0 or 1)
  end
  for i = COSTS_AT, #ARGV do
    local cost = tonumber(ARGV[i]) * per_token
    local by_requests = math.max(now, math.ceil(paced), math.ceil(earliest(requests, per_request)))
    local goes = math.max(by_requests, math.ceil(earliest(tokens, cost)))
    local wait = goes - now
    if refused then
      break
    elseif wait == 0 then
      refused = not start()
    elseif wait > reach and goes > by_requests then
      -- It comes sooner if tokens are given back: no place, and a look half-way.
      answer[4] = math.max(5000, (wait - reach) / 2)
      break
    elseif wait > reach and (pending > 0 or wait > most) then
      answer[4] = math.max(5000, wait - most)
      break
    else
      pending = pending + 1
    end
    if not refused then
      requests, tokens = math.max(requests, goes) + per_request, math.max(tokens, goes) + cost
      paced = gap > 0 and goes + gap or paced
      table.insert(answer, wait)
    end
  end
end

answer[5] = flying
redis.call('HSET', RATES, 'requests', whole(requests), 'tokens', whole(tokens), 'paced', whole(paced), 'found', cjson.encode(found))
-- What was found is known for ten minutes.
redis.call('PEXPIRE', RATES, whole((math.max(requests, tokens, cool, now) - now) / 1000 + 600000))
if counts then
  if held > 0 or refused then
    redis.call('HSET', PLACES, holder, string.format('%d %.0f %.0f', held, now + lease_us, refused and now + hungry_us or 0))
    redis.call('PEXPIRE', PLACES, whole(lease_us / 1000))
  else
    redis.call('HDEL', PLACES, holder)
  end
end
return answer
