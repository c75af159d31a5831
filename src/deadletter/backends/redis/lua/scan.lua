#!lua flags=no-writes,allow-stale
-- One page of rows of one state, in (time, id) order after a cursor: found by rank, never by offset.
-- include: prelude rows
-- ARGV     now, index, state, newest first, after time, after id, since, until, limit, history, body, look (entries met at
--          most), then pairs of field number and wanted value
-- answer   ok, now, texts, after time or empty, after id, rows ...
local set, state, newest = prefix .. ARGV[2], ARGV[3], ARGV[4] == '1'
local after_time, after_id, since, until_ms = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local limit, history, body, look = tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11] == '1', tonumber(ARGV[12])
local WISHES = 13
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

local answer = {'ok', ms(now), false, '', ''}
local last_time, last_id

local function keep(id, row, record)
  answer[#answer + 1] = whole(id, record, row[RD], row[NF] ~= '', history, body and redis.call('GET', prefix .. 'p:' .. id))
end

local function short_list() -- the few that run, from the leases
  local found = {}
  for _, id in ipairs(redis.call('ZRANGE', prefix .. 'lease', 0, SHORT - 1)) do
    local row, record = load(id)
    if row and wanted(row) then
      found[#found + 1] = {id = id, row = row, record = record, time = tonumber(row[CR])}
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
      if #answer - 5 == limit then
        answer[4], answer[5] = last_time, last_id
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
    local part = math.min(100, high - low)
    local first = newest and high - part or low
    local ids = redis.call('ZRANGE', set, first, first + part - 1, 'WITHSCORES')
    local from, to, step = 1, #ids, 2
    if newest then
      from, to, step = #ids - 1, 1, -2
    end
    for at = from, to, step do
      local id = ids[at]
      if #answer - 5 == limit or met == look then
        answer[4], answer[5] = last_time, last_id
        return
      end
      local row, record = load(id)
      met = met + 1
      last_time, last_id = ids[at + 1], id
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
answer[3] = texts()
return answer
