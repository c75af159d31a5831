#!lua flags=allow-oom
-- Lease due rows of some types in order, or some ids due or not.
-- include: prelude rows journal
-- ARGV     now, op, limit, lease, owner, start, max losses or empty, alone, keep or empty, order ("012"), by (types|ids),
--          names ...
-- answer   ok, now, next due or empty, suspects, texts, words ({id, word, ...}), more, rows (both as in rows.lua)
local op, limit, lease, owner, start = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local most_losses, alone, keep, order, by = tonumber(ARGV[7]), ARGV[8] == '1', ARGV[9], ARGV[10], ARGV[11]
local NAMES = 12
local LOOK = 1000 -- entries of one line that a claim passes over at most
local KEPT = 1000 -- claims whose answer can be repeated

local taken, claimed, has_failures, words = 0, {}, {}, {} -- claimed: id and record in turn
local next_due, suspects = nil, false

local function sooner(due)
  if due and (not next_due or due < next_due) then
    next_due = due
  end
end

-- What a claim looks at: format and state; generation, attempts, losses, expiry and failures in one, as all are empty
-- in most; and where the rest begins. What it writes, fields 2 to 9, is the same for all of them but for the id.
local HEAD = '^([^\31]*)\31([^\31]*)' .. string.rep('\31[^\31]*', 7) .. '\31(' .. string.rep('[^\31]*\31', 4) .. '[^\31]*)()'
local MIDDLE = '^[^\31]*\31[^\31]*\31([^\31]*)\31([^\31]*)\31([^\31]*)$'
local NONE = '\31\31\31\31'
local ends = ms(now + lease)
local BEFORE_ID = '\31running\31' .. op .. '-'
local AFTER_ID = '\31' .. op .. '\31' .. ends .. '\31' .. owner .. '\31'
local AFTER_START = '\31' .. (alone and '1' or '') .. '\31' .. keep .. '\31'
local NOT_ALONE = '\31\31' .. keep .. '\31'

local function lease_to_us(id, record, failures, innocent)
  local format, _, middle, rest = string.match(record, HEAD)
  record = format .. BEFORE_ID .. id .. AFTER_ID .. (taken < start and '1' or '')
    .. (innocent and NOT_ALONE or AFTER_START) .. middle .. string.sub(record, rest)
  taken = taken + 1
  claimed[#claimed + 1], claimed[#claimed + 2] = id, record
  has_failures[id] = failures ~= ''
  records[#records + 1], records[#records + 2] = prefix .. 't:' .. id, record
end

local function claimable(format, state, expires)
  if state == 'gone' then
    return 'missing'
  elseif newer(format) then
    return 'newer'
  elseif state ~= 'pending' then
    return state
  end
  expires = tonumber(expires)
  return expires and expires <= now and 'expired' or nil
end

local function before(a, b) -- by due time, then by id
  local x, y = a.dues[a.at], b.dues[b.at]
  if x ~= y then
    return x < y
  end
  return below(a.ids[a.at], b.ids[b.at])
end

-- A line of one type is read in parts, its due times only where it has neighbours; false where nothing (more) is due.
local function read(self)
  if self.ids[self.at] then
    return true
  elseif self.read >= LOOK or (self.read > 0 and #self.ids < self.part) then
    return false
  end
  if self.alone then
    self.ids = redis.call('ZRANGEBYSCORE', self.key, '-inf', now_text, 'LIMIT', self.read, self.part)
  else
    local found = redis.call('ZRANGEBYSCORE', self.key, '-inf', now_text, 'WITHSCORES', 'LIMIT', self.read, self.part)
    self.ids, self.dues = {}, {}
    for n = 1, #found, 2 do
      self.ids[#self.ids + 1] = found[n]
      self.dues[#self.dues + 1] = tonumber(found[n + 1])
    end
  end
  self.read, self.at = self.read + #self.ids, 1
  self.records = #self.ids > 0 and redis.call('MGET', unpack(keys_of('t:', self.ids))) or {}
  return self.ids[1] ~= nil
end

-- What is left of a line that has been read as far as it is due: when its next row is due.
local function leave(self)
  local later = redis.call('ZRANGEBYSCORE', self.key, '(' .. now_text, '+inf', 'WITHSCORES', 'LIMIT', '0', '1')
  sooner(tonumber(later[2]))
end

-- What is left of a line where enough was taken: when the row is due at which it stands.
local function stay(self)
  if self.ids[self.at] then
    sooner(tonumber(redis.call('ZSCORE', self.key, self.ids[self.at])))
  else
    sooner(tonumber(redis.call('ZRANGE', self.key, self.read, self.read, 'WITHSCORES')[2]))
  end
end

local function meet(self)
  local id, record = self.ids[self.at], self.records[self.at]
  local format, state, middle
  if record then
    format, state, middle = string.match(record, HEAD)
  end
  if state ~= 'pending' then -- somebody deleted or changed the record behind our back
    place(self.set, id, false)
    touched[self.name] = true
    if not record then
      orphan(id, self.name)
    end
    return
  end
  local losses, expires, failures = '', '', ''
  if middle ~= NONE then
    losses, expires, failures = string.match(middle, MIDDLE)
  end
  if claimable(format, state, expires) then
    sooner(now) -- expired: the sweep will see to it
    return
  end
  local suspect = most_losses and num(losses) >= most_losses or false
  if suspect ~= alone then
    suspects = suspects or suspect
    return
  end
  place(self.due, id, false)
  touched[self.name] = true
  if losses ~= '' and num(losses) > 0 then
    place('lost:' .. self.name, id, false)
  end
  if expires ~= '' then
    place('expires', id, false)
  end
  lease_to_us(id, record, failures)
  place('lease', id, ends)
  self.taken = self.taken + 1
end

local function lines_of(rank, kind)
  local lines = {}
  for at = NAMES, #ARGV, 500 do
    local last = math.min(at + 499, #ARGV)
    local heads = redis.call('ZMSCORE', prefix .. 'types:' .. rank, unpack(ARGV, at, last))
    for offset, head in ipairs(heads) do
      head = tonumber(head or nil)
      if head and head <= now then
        local name = rank .. ':' .. ARGV[at + offset - 1]
        local set = kind .. name
        lines[#lines + 1] =
          {name = name, set = set, due = 'due:' .. name, key = prefix .. set, ids = {}, at = 1, read = 0, taken = 0}
      else
        sooner(head)
      end
    end
  end
  return lines
end

local function walk(rank, kind)
  local lines, open = lines_of(rank, kind), {}
  local want = math.max(1, limit - taken)
  for _, self in ipairs(lines) do
    self.alone = #lines == 1
    self.part = self.alone and want or math.max(4, math.ceil(2 * want / #lines))
    if limit <= taken then
      stay(self)
    elseif read(self) then
      open[#open + 1] = self
    else
      leave(self)
    end
  end
  while #open > 0 and taken < limit do
    local best = 1
    for n = 2, #open do
      if before(open[n], open[best]) then
        best = n
      end
    end
    local self = open[best]
    meet(self)
    self.at = self.at + 1
    if taken < limit and not read(self) then
      table.remove(open, best)
      leave(self)
    end
  end
  for _, self in ipairs(open) do
    stay(self)
  end
  for _, self in ipairs(lines) do -- what waits and what runs has no reason
    local pending = 'pending ' .. string.sub(self.name, 1, 1) .. ' 0 ' .. string.sub(self.name, 3)
    tally[pending] = (tally[pending] or 0) - self.taken
    local running = 'running' .. string.sub(pending, 8)
    tally[running] = (tally[running] or 0) + self.taken
  end
end

local function ids_taken()
  local ids = {}
  for at = 1, #claimed, 2 do
    ids[#ids + 1] = claimed[at]
  end
  return ids
end

local function ours(row)
  return row and row[ST] == 'running' and row[OP] == op
end

local function again(id, row, record) -- it is leased to this very claim
  claimed[#claimed + 1], claimed[#claimed + 2] = id, record
  has_failures[id] = row[NF] ~= ''
end

local function repeated(ids)
  for _, id in ipairs(ids) do
    local row, record = load(id)
    if ours(row) then
      again(id, row, record)
    end
  end
end

local function by_ids()
  local seen, free = {}, {}
  for at = NAMES, #ARGV do
    local id = ARGV[at]
    local row, record = nil, nil
    if not seen[id] then
      row, record = load(id)
    end
    if ours(row) then
      again(id, row, record)
      taken = taken + 1
    elseif not seen[id] then
      local word = not row and 'missing' or claimable(row[FM], row[ST], row[EX])
      if word then
        words[#words + 1] = id
        words[#words + 1] = word
      else
        free[#free + 1] = {id, row, record}
      end
    end
    seen[id] = true
  end
  for _, one in ipairs(free) do
    if taken < limit then
      local id, row, record = unpack(one)
      enter(row, -1)
      index(id, row, false)
      lease_to_us(id, record, row[NF], num(row[LL]) < (most_losses or 0))
      row[ST], row[LE] = 'running', ends
      enter(row, 1)
      index(id, row, true)
    end
  end
end

if by == 'ids' then
  by_ids()
else
  local before_that = redis.call('HGET', prefix .. 'claims', op)
  if before_that then
    repeated(cjson.decode(before_that))
  else
    for rank in string.gmatch(order, '%d') do
      if #ARGV >= NAMES then
        walk(rank, alone and 'lost:' or 'due:')
      end
    end
    if taken > 0 then
      redis.call('HSET', prefix .. 'claims', op, cjson.encode(ids_taken()))
      if redis.call('RPUSH', prefix .. 'claimed', op) > KEPT then
        redis.call('HDEL', prefix .. 'claims', redis.call('LPOP', prefix .. 'claimed'))
      end
    end
  end
end
finish()

local beside = bodies_beside(claimed)
for at = 1, #claimed, 2 do
  local id = claimed[at]
  tell_row(id, claimed[at + 1], has_failures[id], 1, beside[id])
end
local answer = {'ok', now_text, next_due and ms(next_due) or '', suspects and 1 or 0, texts(), words, more, told_rows}
return answer
