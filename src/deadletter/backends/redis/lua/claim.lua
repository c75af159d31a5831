#!lua flags=allow-oom
-- Lease due rows of some types in order, or some ids due or not.
-- include: prelude rows journal
-- ARGV     now, op, limit, lease, owner, start, max losses or empty, alone, keep or empty, order ("012"), by (types|ids),
--          names ...
-- answer   ok, now, next due or empty, suspects, texts, words ({id, word, ...}), rows ...
local op, limit, lease, owner, start = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local most_losses, alone, keep, order, by = tonumber(ARGV[7]), ARGV[8] == '1', ARGV[9], ARGV[10], ARGV[11]
local NAMES = 12
local LOOK = 1000 -- entries of one line that a claim passes over at most
local KEPT = 1000 -- claims whose answer can be repeated

local taken, rows, words = 0, {}, {}
local next_due, suspects = nil, false

local function sooner(due)
  if not next_due or due < next_due then
    next_due = due
  end
end

local function lease_to_us(id, head, rest)
  head[ST], head[TK], head[OP] = 'running', op .. '-' .. id, op
  head[LE], head[OW], head[KP] = ms(now + lease), owner, keep
  head[SD], head[AL] = taken < start and '1' or '', alone and '1' or ''
  taken = taken + 1
  return table.concat(head, '\31') .. rest
end

local function leased(id, record, has_failures)
  rows[#rows + 1] = {id, record, has_failures}
  records[#records + 1] = prefix .. 't:' .. id
  records[#records + 1] = record
end

local function claimable(head)
  if head[ST] == 'gone' then
    return 'missing'
  elseif num(head[FM]) > FORMAT then
    return 'newer'
  elseif head[ST] ~= 'pending' then
    return head[ST]
  end
  local expires = tonumber(head[EX])
  return expires and expires <= now and 'expired' or nil
end

local function before(a, b) -- by due time, then by id
  if a.due ~= b.due then
    return a.due < b.due
  end
  return below(a.ids[a.at], b.ids[b.at])
end

-- A line of one type is read in parts; false where nothing (more) is due.
local function read(self)
  self.at = self.at + 1
  if not self.ids[self.at] then
    if self.read >= LOOK or (self.read > 0 and #self.ids < self.part) then
      return false
    end
    local found = redis.call('ZRANGEBYSCORE', self.key, '-inf', ms(now), 'WITHSCORES', 'LIMIT', self.read, self.part)
    self.ids, self.dues, self.at = {}, {}, 1
    for n = 1, #found, 2 do
      self.ids[#self.ids + 1] = found[n]
      self.dues[#self.dues + 1] = tonumber(found[n + 1])
    end
    self.read = self.read + #self.ids
    self.records = #self.ids > 0 and redis.call('MGET', unpack(keys_of('t:', self.ids))) or {}
  end
  self.due = self.dues[self.at]
  return self.due ~= nil
end

-- What is left of a line after the walk: when its next row is due.
local function leave(self)
  local later = redis.call('ZRANGEBYSCORE', self.key, '(' .. ms(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if later[2] then
    sooner(tonumber(later[2]))
  end
end

local function meet(self)
  local id, record = self.ids[self.at], self.records[self.at]
  local head = record and {string.match(record, HEAD)}
  if not record or head[ST] ~= 'pending' then -- somebody deleted or changed the record behind our back
    place(self.set, id, false)
    touched[self.name] = true
    if not record then
      orphan(id)
    end
    return
  end
  if claimable(head) then
    sooner(now) -- expired: the sweep will see to it
    return
  end
  local suspect = most_losses and num(head[LL]) >= most_losses or false
  if suspect ~= alone then
    suspects = suspects or suspect
    return
  end
  local rest = string.sub(record, head[NF + 1] - 1)
  head[NF + 1] = nil
  place('due:' .. self.name, id, false)
  touched[self.name] = true
  if num(head[LL]) > 0 then
    place('lost:' .. self.name, id, false)
  end
  if head[EX] ~= '' then
    place('expires', id, false)
  end
  leased(id, lease_to_us(id, head, rest), head[NF] ~= '')
  place('lease', id, head[LE])
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
        lines[#lines + 1] = {name = name, set = set, key = prefix .. set, ids = {}, at = 0, read = 0, taken = 0}
      elseif head then
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
    self.part = #lines == 1 and want or math.max(4, math.ceil(2 * want / #lines))
    if read(self) then
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
    if not read(self) then
      table.remove(open, best)
      leave(self)
    end
  end
  for _, self in ipairs(open) do
    sooner(self.due)
  end
  for _, self in ipairs(lines) do -- what waits and what runs has no reason
    local pending = 'pending ' .. string.sub(self.name, 1, 1) .. ' 0 ' .. string.sub(self.name, 3)
    tally[pending] = (tally[pending] or 0) - self.taken
    local running = 'running' .. string.sub(pending, 8)
    tally[running] = (tally[running] or 0) + self.taken
  end
end

local function packed(taken_rows)
  local parts = {}
  for _, pair in ipairs(taken_rows) do
    parts[#parts + 1] = #pair[1] .. ':' .. pair[1]
  end
  return table.concat(parts)
end

local function repeated(ids)
  local at = 1
  while at <= #ids do
    local colon = string.find(ids, ':', at, true)
    local length = tonumber(string.sub(ids, at, colon - 1))
    local id = string.sub(ids, colon + 1, colon + length)
    at = colon + length + 1
    local row, record = load(id)
    if row and row[ST] == 'running' and row[OP] == op then
      rows[#rows + 1] = {id, record, row[NF] ~= ''}
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
    if row and row[ST] == 'running' and row[OP] == op then
      rows[#rows + 1] = {id, record, row[NF] ~= ''}
      taken = taken + 1
    elseif not seen[id] then
      local word = not row and 'missing' or claimable(row)
      if word then
        words[#words + 1] = id
        words[#words + 1] = word
      else
        free[#free + 1] = {id, row}
      end
    end
    seen[id] = true
  end
  for _, pair in ipairs(free) do
    if taken < limit then
      local id, row = pair[1], pair[2]
      enter(row, -1)
      index(id, row, false)
      leased(id, lease_to_us(id, row, ''), row[NF] ~= '')
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
    repeated(before_that)
  else
    for rank in string.gmatch(order, '%d') do
      if #ARGV >= NAMES then
        walk(rank, alone and 'lost:' or 'due:')
      end
    end
    if taken > 0 then
      redis.call('HSET', prefix .. 'claims', op, packed(rows))
      if redis.call('RPUSH', prefix .. 'claimed', op) > KEPT then
        redis.call('HDEL', prefix .. 'claims', redis.call('LPOP', prefix .. 'claimed'))
      end
    end
  end
end
finish()

local answer = {'ok', ms(now), next_due and ms(next_due) or '', suspects and 1 or 0, false, words}
if #rows > 0 then
  local ids = {}
  for n, row in ipairs(rows) do
    ids[n] = row[1]
  end
  local found = redis.call('MGET', unpack(keys_of('p:', ids)))
  for n, row in ipairs(rows) do
    local redact = string.match(row[2], '^.*\31(.*)$') -- the last field of a record that we could claim
    answer[#answer + 1] = whole(row[1], row[2], redact, row[3], 1, found[n])
  end
end
answer[5] = texts()
return answer
