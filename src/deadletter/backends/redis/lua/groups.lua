#!lua flags=no-writes,allow-stale
-- The causes of all letters with their numbers, where these are few enough for one answer and count every letter; or,
-- where keys are given, what the index of each says: how many, the first and the last.
-- include: prelude rows
-- ARGV     now, most (causes), index ("dx:fp:" and the like), keys ...
-- answer   ok, causes ({cause, n, ...}) or false, {number of letters, time of the first, ...}, more, rows (both as in
--          rows.lua; the last letter of each key, its record false where there is none)
local most, index = tonumber(ARGV[2]), ARGV[3]

local function causes()
  if redis.call('HLEN', prefix .. 'causes') > most then
    return false
  end
  local found, sum = redis.call('HGETALL', prefix .. 'causes'), 0
  for at = 2, #found, 2 do
    sum = sum + tonumber(found[at])
  end
  return sum == redis.call('ZCARD', prefix .. 'dead') and found -- else some are of format 1, which were not counted
end

if not ARGV[4] then
  return {'ok', causes(), {}, more, told_rows}
end
local sizes = {}
for at = 4, #ARGV do
  local key = prefix .. index .. ARGV[at]
  local first, last = redis.call('ZRANGE', key, '0', '0', 'WITHSCORES'), redis.call('ZRANGE', key, '-1', '-1')[1] or ''
  sizes[#sizes + 1], sizes[#sizes + 2] = redis.call('ZCARD', key), first[2] or ''
  local record = redis.call('GET', prefix .. 't:' .. last)
  local body = record and body_at(record)
  tell_row(last, body and string.sub(record, 1, body - 3) or record, false, 0, false)
end
return {'ok', false, sizes, more, told_rows}
