"""Define the scripts that Redis runs: charges, settlements and leases, each atomic.

The rules are those of `olla.access.limiter`. The time is the server's, because clocks of routers
differ. A meter per minute is stored as "ahead second microsecond": the seconds until it is empty,
and when that was computed. A float of seconds since 1970 would lose a microsecond with each charge;
`ahead` is small. All keys expire.

KEYS are meters, one each. ARGV begins with a time, or two empty words for the server's; tests pass
theirs. Kinds are one letter: r requests, t tokens, c concurrent, d daily.
"""

from hashlib import sha1

__all__ = ["CHARGE", "RENEW", "SETTLE", "Script"]


class Script:
    """A script: its text, and the digest under which Redis stores it."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.digest = sha1(self.text, usedforsecurity=False).hexdigest().encode()


_METERS = """
local second, micro = ARGV[1], ARGV[2]
if second == '' then
  local time = redis.call('TIME')
  second, micro = time[1], time[2]
end
second, micro = tonumber(second), tonumber(micro)
local day = math.floor(second / 86400)

local function ahead(key)
  local text = redis.call('GET', key)
  if not text then return 0 end
  local level, at, part = string.match(text, '^(%S+) (%S+) (%S+)$')
  local passed = second - tonumber(at) + (micro - tonumber(part)) / 1e6
  return math.max(tonumber(level) - math.max(passed, 0), 0)
end

local function put(key, text, seconds)
  redis.call('SET', key, text, 'PX', string.format('%.0f', math.ceil(seconds * 1000) + 1000))
end

local function put_ahead(key, level)
  if level > 0 then
    put(key, string.format('%.17g %d %d', level, second, micro), level)
  else
    redis.call('DEL', key)
  end
end

local function put_used(key, used)
  put(key, string.format('%d %.17g', day, math.max(used, 0)), 86400 - second % 86400)
end

local function lease(key, name, seconds)
  redis.call('ZADD', key, string.format('%.6f', second + micro / 1e6 + seconds), name)
  redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(seconds * 1000) + 1000))
end
"""

CHARGE = Script(
    _METERS
    + """
-- ARGV: name of the lease, its seconds, tokens, and the day of the charge that this one replaces
-- (0: none); then six words for each meter: kind, whether it is a shadow, its amount, interval and
-- window (or the day and what is known to be used of it, which counts where nothing is stored),
-- and the tokens that the replaced charge put there (empty where it put nothing).
-- Answers "refused wait day", then "exceeded:level" for each meter: which was refused (0: none),
-- the seconds to wait, the day, whether a shadow was exceeded, and how full it is now.
local name, seconds, tokens = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local charged = tonumber(ARGV[6])
local refused, longest = 0, 0
local kinds, levels, mores, exceeded, replaced = {}, {}, {}, {}, {}

for i, key in ipairs(KEYS) do
  local at = 6 * i + 1
  local kind, shadow, amount = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local first, last = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local before = tonumber(ARGV[at + 5])
  local level, more, wait
  replaced[i] = before
  if kind == 'c' then
    redis.call('ZREM', key, name)
    redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.6f', second + micro / 1e6))
    level, more = redis.call('ZCARD', key), 1
    wait = level >= amount and 1 or 0
  elseif kind == 'd' then
    local text = redis.call('GET', key)
    if text then
      first, last = string.match(text, '^(%S+) (%S+)$')
    end
    level, more = tonumber(first) == day and tonumber(last) or 0, tokens
    if before and text and charged == day then
      level = math.max(level - before, 0)
    end
    local fits = level + tokens <= amount or level == 0
    wait = fits and 0 or 86400 - second % 86400 - micro / 1e6
  else
    level, more = ahead(key), kind == 'r' and first or first * tokens
    if before then
      level = math.max(level - (kind == 'r' and first or first * before), 0)
    end
    wait = math.min(level + more - last, level)
    if wait <= 1e-6 then wait = 0 end
  end
  kinds[i], levels[i], mores[i] = kind, level, more
  exceeded[i] = wait > 0 and shadow == '1'
  if wait > longest and not exceeded[i] then
    refused, longest = i, wait
  end
end

local answer = {string.format('%d %.17g %d', refused, longest, day)}
for i, key in ipairs(KEYS) do
  local fits = refused == 0 and not exceeded[i]
  if fits then
    levels[i] = levels[i] + mores[i]
  end
  if fits or replaced[i] then
    if kinds[i] == 'c' then
      if fits then lease(key, name, seconds) end
    elseif kinds[i] == 'd' then
      put_used(key, levels[i])
    else
      put_ahead(key, levels[i])
    end
  end
  answer[i + 1] = string.format('%d:%.17g', exceeded[i] and 1 or 0, levels[i])
end
return table.concat(answer, ' ')
"""
)

SETTLE = Script(
    _METERS
    + """
-- ARGV: name of the lease, how many tokens more it was than charged, the day of the charge; then
-- for each meter: kind, interval. Where nothing is stored of a day, the next charge says what is
-- known.
local name, more, charged = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
for i, key in ipairs(KEYS) do
  local kind = ARGV[2 * i + 4]
  if kind == 'c' then
    redis.call('ZREM', key, name)
  elseif kind == 't' then
    put_ahead(key, ahead(key) + more * tonumber(ARGV[2 * i + 5]))
  elseif more > 0 or charged == day then
    local text = redis.call('GET', key)
    if text then
      local at, used = string.match(text, '^(%S+) (%S+)$')
      put_used(key, (tonumber(at) == day and tonumber(used) or 0) + more)
    end
  end
end
"""
)

RENEW = Script(
    _METERS
    + """
-- ARGV: seconds of a lease; then the names of all leases that the router holds on the one meter.
for i = 4, #ARGV do
  lease(KEYS[1], ARGV[i], tonumber(ARGV[3]))
end
"""
)
