#!lua flags=no-writes,allow-stale
-- One page of rows of one state, in (time, id) order after a cursor: found by rank, never by offset.
-- include: prelude rows
-- ARGV     now, index, state, newest first, after time, after id, since, until, limit, history, body, look (entries met at
--          most), text (ASCII, in small letters: rows that cannot hold it are left out), then pairs of field number and
--          wanted value
-- answer   ok, now, texts, after time or empty, after id, more, rows (both as in rows.lua)
local set, state, newest = prefix .. ARGV[2], ARGV[3], ARGV[4] == '1'
local after_time, after_id, since, until_ms = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local limit, history, body, look = tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11] == '1', tonumber(ARGV[12])
local text = ARGV[13]
local WISHES = 14
local SHORT = 500 -- as many running rows are sorted here

-- How many entries lie before (time, id); inclusive counts an equal one too.
local function position(time, id, inclusive)
  local low = redis.call('ZCOUNT', set, '-inf', '(' .. time)
  local high = redis.call('ZCOUNT', set, '-inf', time)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local other = redis.call('ZRANGE', set, middle, middle)[1]
    if below(other, id) or (inclusive and other == id) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

-- A pattern that captures only the fields that are asked for here: a fourth of the cost of all.
local function peeker()
  local asked = {[ST] = true, [NF] = true, [CR] = state == 'running'}
  for at = WISHES, #ARGV, 2 do
    asked[tonumber(ARGV[at])] = true
  end
  local parts, fields = {}, {}
  local skipped = ''
  for field = 1, FIELDS do
    local stop = field == FIELDS and '\30\31' or '\31'
    if asked[field] then
      parts[#parts + 1] = skipped .. '([^' .. stop .. ']*)'
      fields[#fields + 1] = field
      skipped = '\31'
    else
      skipped = skipped .. '[^' .. stop .. ']*\31'
    end
  end
  return '^' .. table.concat(parts), fields
end
local peek, peeked = peeker()

local function look_into(record)
  local row = {}
  for n, text in ipairs({string.match(record, peek)}) do
    row[peeked[n]] = text
  end
  return row
end

local function wanted(row)
  if row[ST] ~= state then
    return false
  end
  for at = WISHES, #ARGV, 2 do
    if row[tonumber(ARGV[at])] ~= ARGV[at + 1] then
      return false
    end
  end
  return true
end

-- The first bytes of what folds into ASCII, such as the long s and ligatures: whoever asked decides on such a text. (Each by
-- itself: to look for all of them by a pattern takes five times as long as all that is done with a row.)
local FOLDING = {'\195', '\196', '\197', '\199', '\225', '\226', '\239'}

local function may_hold(told)
  if string.find(string.lower(told), text, 1, true) then
    return true
  end
  for _, first in ipairs(FOLDING) do
    if string.find(told, first, 1, true) then
      return true
    end
  end
  return false
end

local judged = {} -- tracebacks by name

local function may_match(id)
  for _, failure in ipairs(brought(id, 1)) do
    local name = string.sub(failure, 1, 32)
    if judged[name] == nil then
      judged[name] = may_hold(redis.call('HGET', prefix .. 'traces', name) or '')
    end
    if judged[name] or may_hold(failure) then
      return true
    end
  end
  return false
end

local on_time, on_id = '', '' -- where the next page goes on
local last_time, last_id

local function is_full()
  return #told_rows == 2 * limit
end

local function keep(id, row, record)
  local at, beside = body_at(record), false
  if body and not at then
    beside = redis.call('GET', prefix .. 'p:' .. id)
  elseif at and not body then
    record = string.sub(record, 1, at - 3)
  end
  tell_row(id, record, row[NF] ~= '', history, beside)
end

local function short_list() -- the few that run, from the leases
  local found, ids = {}, redis.call('ZRANGE', prefix .. 'lease', 0, SHORT - 1)
  for at, record in ipairs(#ids > 0 and redis.call('MGET', unpack(keys_of('t:', ids))) or ids) do
    local row = record and look_into(record)
    if row and wanted(row) then
      found[#found + 1] = {id = ids[at], row = row, record = record, time = tonumber(row[CR])}
    end
  end
  table.sort(found, function(a, b)
    local x, y = newest and b or a, newest and a or b
    return x.time < y.time or (x.time == y.time and below(x.id, y.id))
  end)
  local passed_time = tonumber(after_time)
  for _, this in ipairs(found) do
    local passed = false
    if passed_time then
      local is_below = this.time < passed_time or (this.time == passed_time and below(this.id, after_id))
      passed = not is_below
      if not newest then
        passed = is_below or (this.time == passed_time and this.id == after_id)
      end
    end
    local inside = (since == '' or this.time >= tonumber(since)) and (until_ms == '' or this.time <= tonumber(until_ms))
    if not passed and inside then
      if is_full() then
        on_time, on_id = last_time, last_id
        return
      end
      keep(this.id, this.row, this.record)
      last_time, last_id = ms(this.time), this.id
    end
  end
end

local function long_list()
  local low, high = 0, redis.call('ZCARD', set) -- ranks from low up to, not including, high
  if since ~= '' then
    low = redis.call('ZCOUNT', set, '-inf', '(' .. since)
  end
  if until_ms ~= '' then
    high = redis.call('ZCOUNT', set, '-inf', until_ms)
  end
  if after_time ~= '' then
    if newest then
      high = math.min(high, position(after_time, after_id, false))
    else
      low = math.max(low, position(after_time, after_id, true))
    end
  end
  local met = 0
  while low < high do
    local part = math.min(#ARGV < WISHES and text == '' and math.max(1, limit - #told_rows / 2) or 100, high - low)
    local first = newest and high - part or low
    local found = redis.call('ZRANGE', set, first, first + part - 1, 'WITHSCORES')
    local ids, from, to, step = {}, 1, #found / 2, 1
    for at = 1, to do
      ids[at] = found[2 * at - 1]
    end
    if newest then
      from, to, step = to, 1, -1
    end
    local records = text == '' and redis.call('MGET', unpack(keys_of('t:', ids)))
    for at = from, to, step do
      if is_full() or met == look then
        on_time, on_id = last_time, last_id
        return
      end
      local id, record = ids[at], records and records[at]
      if not records and may_match(id) then -- few do: the others need not be read
        record = redis.call('GET', prefix .. 't:' .. id)
      end
      local row = record and look_into(record)
      met = met + 1
      last_time, last_id = found[2 * at], id
      if row and wanted(row) then
        keep(id, row, record)
      end
    end
    if newest then
      high = first
    else
      low = first + part
    end
  end
end

if state == 'running' and redis.call('ZCARD', prefix .. 'lease') <= SHORT then
  short_list()
else
  long_list()
end
return {'ok', ms(now), texts(), on_time, on_id, more, told_rows}
