-- Before all else of an insert: rows that only wait, and of which nothing is there yet. Nearly all are like that, and want
-- none of what comes after, which takes longer to be set up than all of this to run. nil: some are not, nothing is written.

-- A kind of rows, laid out as insert.lua says: what is the same in all their records, and where they wait.
local function waiting(at)
  local state, rank, type_ = ARGV[at + 3], ARGV[at + 2], ARGV[at + 1]
  local more = ARGV[at + 6] .. ARGV[at + 7] .. ARGV[at + 8] .. ARGV[at + 11] .. ARGV[at + 12] .. ARGV[at + 19] .. ARGV[at + 20]
  if state ~= 'pending' or more ~= '' then
    return nil
  end
  local expires = ARGV[at + 4] ~= '' and ms(now + num(ARGV[at + 4])) or ''
  local head = OURS .. '\31pending\31\31\31\31\31\31\31' .. ARGV[at + 5] .. '\31\31\31\31' .. expires .. '\31\31\31\31\31'
  local middle = '\31\31\31\31\31\31\31' .. ARGV[at + 10] .. '\31' .. rank .. '\31' .. type_ .. '\31' .. ms(now) .. '\31'
  return {
    head = head, middle = middle, tail = '\31' .. ARGV[at + 9], expires = expires, rank = rank, type = type_, due = {},
    list = ARGV[at + 9], hidden = ARGV[at + 18], counters = ARGV[at + 15],
  }
end

local function all_new(first, news, stride)
  local asked, seen = {}, {}
  for at = first, first + (news - 1) * stride, stride do
    if ARGV[at + 8] ~= '' then -- it brings its own time
      return false
    end
    asked[#asked + 1] = prefix .. 't:' .. ARGV[at + 1]
    if ARGV[at + 2] ~= '' then
      asked[#asked + 1] = prefix .. 'k:' .. ARGV[at + 2]
    end
  end
  for n, found in ipairs(redis.call('MGET', unpack(asked))) do
    if found or seen[asked[n]] then
      return false
    end
    seen[asked[n]] = true
  end
  return true
end

-- The records of rows; fills the kinds' due times and the set of all that live.
local function written(first, news, stride, kinds, created, alive)
  local records = {}
  for at = first, first + (news - 1) * stride, stride do
    local id, body, kind, due = ARGV[at + 1], ARGV[at + 4], kinds[ARGV[at + 7]], ARGV[at + 6]
    if due == '' then
      due = ARGV[at + 5] == '0' and created or ms(now + num(ARGV[at + 5]))
    end
    local record = kind.head .. (due ~= created and due or '') .. kind.middle .. ARGV[at + 2] .. '\31' .. ARGV[at + 3] .. kind.tail
    if #body > INLINE then
      records[#records + 1], records[#records + 2] = prefix .. 'p:' .. id, body
    else
      record = record .. '\30\30' .. body
    end
    records[#records + 1], records[#records + 2] = prefix .. 't:' .. id, record
    if ARGV[at + 2] ~= '' then
      records[#records + 1], records[#records + 2] = prefix .. 'k:' .. ARGV[at + 2], id
    end
    kind.due[#kind.due + 1], kind.due[#kind.due + 2] = due, id
    if not kind.soonest or num(due) < num(kind.soonest) then
      kind.soonest = due
    end
    alive[#alive + 1], alive[#alive + 2] = created, id
    if kind.expires ~= '' then
      redis.call('ZADD', prefix .. 'expires', kind.expires, id)
    end
  end
  return records
end

local function add_to(hash, field, n)
  if redis.call('HINCRBY', prefix .. hash, field, n) == 0 then
    redis.call('HDEL', prefix .. hash, field)
  end
end

local function fresh()
  local KIND, NEW = 20, 9
  local kinds, n, news = {}, tonumber(ARGV[2]), tonumber(ARGV[3])
  local first = 5 + n * KIND
  for number = 1, ARGV[4] == '0' and n or 0 do
    kinds[ms(number)] = waiting(5 + (number - 1) * KIND)
  end
  for number = 1, n do
    if not kinds[ms(number)] then
      return nil
    end
  end
  if not all_new(first, news, NEW) then
    return nil
  end
  local answer, alive, created, work = {'ok', ms(now)}, {}, ms(now), false
  redis.call('HSETNX', KEYS[1], 'format', FORMAT)
  local records = written(first, news, NEW, kinds, created, alive)
  redis.call('MSET', unpack(records))
  redis.call('ZADD', prefix .. 'live', unpack(alive))
  for _, kind in pairs(kinds) do
    local stored = #kind.due / 2
    if kind.list ~= '' then
      redis.call('HSETNX', prefix .. 'redacts', kind.list, kind.hidden)
    end
    redis.call('ZADD', prefix .. 'due:' .. kind.rank .. ':' .. kind.type, unpack(kind.due))
    work = redis.call('ZADD', prefix .. 'types:' .. kind.rank, 'LT', 'CH', kind.soonest, kind.type) == 1 or work
    add_to('tally', 'pending ' .. kind.rank .. ' 0 ' .. kind.type, stored)
    for counter in string.gmatch(kind.counters, '[^\n]+') do
      add_to('stats', counter, stored)
    end
  end
  if work then -- who sleeps until the earliest due wants to know; all shards of a queue ring one bell
    redis.pcall('PUBLISH', string.gsub(prefix, ':%d+}:$', ':0}:') .. 'bell', 'work')
  end
  for number = 1, news do
    answer[number + 2] = 'stored'
  end
  return answer
end

do
  local answer = fresh()
  if answer then
    return answer
  end
end
