-- One request against all limits of a policy, in one step of the store's: nobody comes between.
-- KEYS: one a limit. ARGV: algorithm, now (0: the store's own clock), whether refused requests count, max_delay,
-- then count, seconds and burst of each limit. Answers five texts a limit: passed, remaining, reset, retry, delay.
local how, now = ARGV[1], tonumber(ARGV[2])
local counts_refused, max_delay = ARGV[3] == '1', tonumber(ARGV[4])
if now == 0 then
  local t = redis.call('TIME')
  now = tonumber(t[1]) + tonumber(t[2]) / 1e6
end
local floor, max, min, DAY = math.floor, math.max, math.min, 86400

local function exact(n) return string.format('%.17g', n) end
local function live(key, seconds) redis.call('PEXPIRE', key, floor(seconds * 1000) + 1000) end

-- Days since 1970 of a month's first day, and the month of a day: the proleptic Gregorian calendar.
local function day_of(year, month)
  if month <= 2 then year = year - 1 end
  local era = floor(year / 400)
  local yoe, shifted = year - era * 400, (month + 9) % 12
  return era * 146097 + yoe * 365 + floor(yoe / 4) - floor(yoe / 100) + floor((153 * shifted + 2) / 5) - 719468
end
local function month_of(day)
  local z = day + 719468
  local era = floor(z / 146097)
  local doe = z - era * 146097
  local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
  local shifted = floor((5 * doy + 2) / 153)
  local month = shifted < 10 and shifted + 3 or shifted - 9
  return yoe + era * 400 + (month <= 2 and 1 or 0), month
end

local function window_start(seconds)
  if seconds < 30 * DAY then return now - now % seconds end
  local year, month = month_of(floor(now / DAY))
  return day_of(year, seconds >= 365 * DAY and 1 or month) * DAY
end

-- Each decides on what is there, and gives back what it would leave behind.
local takers = {}

takers['fixed window'] = function(key, count, seconds)
  local start = window_start(seconds)
  local was = redis.call('HMGET', key, 'since', 'level')
  local used = tonumber(was[1] or '') == start and tonumber(was[2]) or 0
  local passed = used < count
  local reset = max(1, seconds - (now - start))
  return { passed, max(0, count - used - 1), reset, passed and 0 or reset, 0 }, function()
    redis.call('HSET', key, 'since', exact(start), 'level', exact(used + 1))
    live(key, seconds + 2 * DAY * (seconds >= 30 * DAY and 1 or 0))
  end
end

takers['token bucket'] = function(key, count, seconds, burst)
  local size, rate = burst > 0 and burst or count, count / seconds
  local was = redis.call('HMGET', key, 'since', 'level')
  local have = was[1] and min(size, tonumber(was[2]) + (now - tonumber(was[1])) * rate) or size
  local wait = max(0, (1 - have) / rate)
  local passed = wait <= max_delay + 1e-9
  local left = passed and have - 1 or have
  local reset = left < 1 and max(0, (1 - left) / rate) or 0
  return { passed, max(0, floor(left + 1e-9)), reset, passed and 0 or wait, passed and wait or 0 }, function()
    redis.call('HSET', key, 'since', exact(now), 'level', exact(left))
    live(key, size / rate + max_delay)
  end
end

takers['sliding window'] = function(key, count, seconds)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', exact(now - seconds))
  local kept = redis.call('ZCARD', key)
  local passed = kept < count
  local adds = passed or counts_refused
  local wait = 0
  if not passed then
    wait = tonumber(redis.call('ZRANGE', key, -count, -count, 'WITHSCORES')[2]) + seconds - now
  end
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  local oldest = (first and tonumber(first) or now) + seconds - now
  if not first and not adds then oldest = 0 end
  return { passed, max(0, count - kept - (adds and 1 or 0)), oldest, wait, 0 }, function()
    local turn = redis.call('INCR', key .. ':n')
    redis.call('ZADD', key, exact(now), turn)
    redis.call('ZREMRANGEBYRANK', key, 0, -count - 1)
    live(key, seconds)
    live(key .. ':n', seconds)
  end
end

takers['leaky bucket'] = function(key, count, seconds, burst)
  local step, size = seconds / count, burst > 0 and burst or count
  local empty_at = max(now, tonumber(redis.call('GET', key) or '') or now)
  if max_delay > 0 then -- a queue: one leaves after the other
    local due = empty_at - now
    local passed = due <= max_delay + 1e-6
    local behind = passed and empty_at + step or empty_at
    return { passed, 0, behind - now, passed and 0 or due - max_delay, passed and due or 0 }, function()
      redis.call('SET', key, exact(behind))
      live(key, behind - now)
    end
  end
  local level = (empty_at - now) / step
  local passed = level + 1 <= size + 1e-9
  local after = passed and empty_at + step or empty_at
  local wait = passed and 0 or (level + 1 - size) * step
  return { passed, max(0, floor(size - (after - now) / step + 1e-9)), max(0, after - now), wait, 0 }, function()
    redis.call('SET', key, exact(after))
    live(key, after - now)
  end
end

local found, leave, all = {}, {}, true
for i, key in ipairs(KEYS) do
  local at = 4 + (i - 1) * 3
  local verdict, behind = takers[how](key, tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]))
  all = all and verdict[1]
  leave[i] = behind
  for n, value in ipairs(verdict) do
    found[#found + 1] = n == 1 and (value and '1' or '0') or exact(value)
  end
end
if all or counts_refused then
  for _, behind in ipairs(leave) do behind() end
end
return found
