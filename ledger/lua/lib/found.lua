-- found: how many calls a provider bears, in flight and a second, found by what it refuses; joined in front of
-- scripts that say "uses: found". `batchord.chains.ratelimit.found_limits` has the same, and says why.
-- Times are milliseconds of the server's clock; a bound of 0 stands for no bound.

local START, RAMP, FREE, IDLE = 2, 100, 1000, 60000
local HOLD, MOST_PATIENT, INCREASE = 40, 32, 0.1
local SLOWER, DECREASE, PACE_HOLD, PACE_PATIENT = 0.85, 0.7, 3, 8
local FEW, FEW_ROUND, FEW_INCREASE, SLOWEST, FASTEST = 2, 2, 0.5, 0.3, 1000

local function bound_new()
  return {value = 0, good = 0, growing = 0, patient = 1, answers = 0}
end

local function bound_copy(b)
  return {value = b.value, good = b.good, growing = b.growing, patient = b.patient, answers = b.answers}
end

local function bound_lower(b, value)
  if b.growing == 1 and b.value > 0 then
    b.patient = math.min(MOST_PATIENT, 2 * b.patient)
  end
  b.value, b.answers, b.growing = value, 0, 0
end

local function bound_answered(b, count, round, step, hold)
  b.answers = b.answers + count
  if b.answers >= (b.growing == 1 and round or hold * b.patient) then
    b.good, b.answers, b.growing, b.value = b.value, 0, 1, b.value + step
  end
end

local function found_load(key, now)
  local text = redis.call('HGET', key, 'found')
  if text then
    return cjson.decode(text)
  end
  return {began = now, used = now, flight = bound_new(), pace = bound_new(), refused_at = 0, round = 0, lost = 0,
    second = 0, this = 0, last = 0}
end

-- Answers of the last second, from those of this second and of the one before.
local function found_answers(f, now)
  local second = math.floor(now / 1000)
  if second ~= f.second then
    f.last, f.this = second == f.second + 1 and f.this or 0, 0
    f.second = second
  end
  return f.this + f.last * (1 - (now % 1000) / 1000)
end

local function found_slower(f, now)
  local pace = f.pace
  if pace.value == 0 then
    local known = found_answers(f, now)
    return known >= 1 and SLOWER * known or 1
  elseif pace.growing == 1 then
    return math.min(pace.good, SLOWER * pace.value)
  end
  return DECREASE * pace.value
end

-- Return the milliseconds in which no call should begin.
local function found_refused(f, at, flying, now)
  local flight = f.flight
  if at <= f.refused_at then
    f.lost = f.lost + 1
    local borne = math.max(1, f.round - f.lost)
    if (flight.value == 0 or borne < flight.value) and f.pace.value == 0 then
      flight.value = borne
    end
    return 0
  end
  f.refused_at, f.round, f.lost = now, flying, 1
  f.before = f.before or {flight = bound_copy(flight), pace = bound_copy(f.pace)}
  if flight.value ~= 1 and flying > 1 then
    local borne = (flight.value > 0 and math.min(flight.value, flying) or flying) - 1
    if flight.growing == 1 then
      borne = math.min(borne, flight.good)
    end
    bound_lower(flight, math.max(1, borne))
    return 0
  end
  bound_lower(flight, 1)
  bound_lower(f.pace, math.max(SLOWEST, found_slower(f, now)))
  return 1000 / f.pace.value
end

local function found_answered(f, news)
  local flight, pace = f.flight, f.pace
  f.before = nil
  if flight.value > 0 and news.full > 0 then
    local step = math.max(1, INCREASE * flight.value)
    bound_answered(flight, news.full, flight.value, step, HOLD * step)
  end
  if pace.value > 0 then
    local few = pace.value < FEW
    pace.patient = math.min(PACE_PATIENT, pace.patient)
    local step = (few and FEW_INCREASE or INCREASE) * pace.value
    bound_answered(pace, news.answered, few and FEW_ROUND or pace.value, step, few and FEW_ROUND or PACE_HOLD * pace.value)
    if pace.value > FASTEST then
      f.pace = bound_new()
    end
  end
end

-- Take in what a process tells, with ages in milliseconds; return the milliseconds in which no call should begin.
local function found_take(f, news, flying, now)
  if now - f.used > IDLE or (news.recovered and now - f.began > FREE) then
    f.began = now
  end
  f.used = now
  if news.recovered and f.before then
    f.flight, f.pace, f.before = f.before.flight, f.before.pace, nil
  end
  local pause = 0
  for _, age in ipairs(news.refused) do
    pause = math.max(pause, found_refused(f, now - age, flying + #news.refused, now))
  end
  if news.answered > 0 then
    found_answers(f, now)
    f.this = f.this + news.answered
    if now - news.youngest > f.refused_at then
      found_answered(f, news)
    end
  end
  return pause
end

-- Return how many calls may be in flight, or math.huge.
local function found_allowed(f, ramps, now)
  local most = f.flight.value > 0 and f.flight.value or math.huge
  if ramps and now - f.began < FREE then
    most = math.min(most, START * 2 ^ ((now - f.began) / RAMP))
  end
  return math.floor(most)
end
