#!lua flags=no-writes,allow-stale
-- The tally and the lifetime counters, where they are few enough for one answer; the oldest; what is overdue.
-- include: prelude
-- ARGV     now, most (fields of tally or counters)
-- answer   ok, now, tally or false, counters or false, oldest pending or empty, oldest death or empty, {type, n, ...}
local most = tonumber(ARGV[2])
local OVERDUE, LOOK, TYPES = 60000, 1000, 1000

local function all(key)
  if redis.call('HLEN', prefix .. key) > most then
    return false
  end
  return redis.call('HGETALL', prefix .. key)
end

local function oldest_pending() -- the first that waits among those that live: what runs is older, and few
  local at = 0
  while at < LOOK do
    local found = redis.call('ZRANGE', prefix .. 'live', at, at + 99, 'WITHSCORES')
    for n = 1, #found, 2 do
      local record = redis.call('GET', prefix .. 't:' .. found[n]) or ''
      if string.match(record, '^[^\31]*\31([^\31]*)') == 'pending' then
        return found[n + 1]
      end
    end
    if #found < 200 then
      return ''
    end
    at = at + 100
  end
  return redis.call('ZRANGE', prefix .. 'live', at, at, 'WITHSCORES')[2] or ''
end

local overdue = {}
for rank = 0, 2 do
  local late = redis.call('ZRANGEBYSCORE', prefix .. 'types:' .. rank, '-inf', '(' .. ms(now - OVERDUE), 'LIMIT', 0, TYPES)
  for _, type_ in ipairs(late) do
    overdue[#overdue + 1] = type_
    overdue[#overdue + 1] =
      redis.call('ZCOUNT', prefix .. 'due:' .. rank .. ':' .. type_, '-inf', '(' .. ms(now - OVERDUE))
  end
end
local dead = redis.call('ZRANGE', prefix .. 'dead', 0, 0, 'WITHSCORES')
return {'ok', ms(now), all('tally'), all('stats'), oldest_pending(), dead[2] or '', overdue}
