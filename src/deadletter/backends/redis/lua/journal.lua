-- What a step changes beside its rows: indexes, tally, counters, events. Gathered, and written once by finish().
local moves, tally, stats, touched = {}, {}, {}, {}
local told, work = false, false
local records, bodies, deleted = {}, {}, {} -- to set: keys and values in turn; to delete

local function place(set, id, score) -- score false: away from there. The last word on an id holds.
  local members = moves[set]
  if not members then
    members = {}
    moves[set] = members
  end
  members[id] = score
end

local function line(row) -- where it waits for a claim
  local name = row[PR] .. ':' .. row[TY]
  touched[name] = true
  return name
end

local function count(field, n)
  stats[field] = (stats[field] or 0) + n
end

local function enter(row, n)
  local reason = row[RS]
  local field = row[ST] .. ' ' .. row[PR] .. ' ' .. #reason .. ' ' .. reason .. row[TY]
  tally[field] = (tally[field] or 0) + n
end

-- Take a row out of the indexes of its state (to = false), or put it into them.
local function index(id, row, to)
  local state = row[ST]
  if state == 'pending' then
    local name = line(row)
    place('due:' .. name, id, to and row[DU])
    if num(row[LL]) > 0 then
      place('lost:' .. name, id, to and row[DU])
    end
    if row[EX] ~= '' then
      place('expires', id, to and row[EX])
    end
    place('live', id, to and row[CR])
    return
  elseif state == 'running' then
    place('lease', id, to and row[LE])
    place('live', id, to and row[CR])
    return
  elseif state == 'dead' then
    place('dead', id, to and row[EN])
    place('dead:' .. row[PR], id, to and row[EN])
    place('dx:type:' .. row[TY], id, to and row[EN])
    if row[RS] ~= '' then
      place('dx:reason:' .. row[RS], id, to and row[EN])
    end
    if row[FP] ~= '' then
      place('dx:fp:' .. row[FP], id, to and row[EN])
    end
  elseif state == 'succeeded' then
    place('done', id, to and row[CR])
  end
  if row[KU] ~= '' then
    place('keep', id, to and row[KU])
  end
end

local function add_failure(id, head, trace, text)
  if text and redis.call('HINCRBY', prefix .. 'uses', trace, 1) == 1 then
    redis.call('HSET', prefix .. 'traces', trace, text)
  end
  return redis.call('RPUSH', prefix .. 'f:' .. id, trace .. head)
end

local function drop_failures(entries)
  for _, entry in ipairs(entries) do
    local trace = string.sub(entry, 1, 32)
    if string.sub(trace, 1, 1) ~= '-' and redis.call('HINCRBY', prefix .. 'uses', trace, -1) <= 0 then
      redis.call('HDEL', prefix .. 'uses', trace)
      redis.call('HDEL', prefix .. 'traces', trace)
    end
  end
end

local function wipe(id)
  local key = prefix .. 'f:' .. id
  drop_failures(redis.call('LRANGE', key, 0, -1))
  redis.call('DEL', key)
end

-- Delete a row past its keep; the letters among them are counted, and told by type.
local aged, aged_types = {}, {} -- how many of a type, and the types in the order in which they were met
local function forget(id, row)
  index(id, row, false)
  if row[ST] ~= 'gone' then
    enter(row, -1)
  end
  if row[NF] ~= '' then
    wipe(id)
  end
  redis.call('DEL', prefix .. 't:' .. id, prefix .. 'p:' .. id)
  if row[KE] ~= '' then
    redis.call('DEL', prefix .. 'k:' .. row[KE])
  end
  if row[ST] == 'dead' then
    if not aged[row[TY]] then
      aged[row[TY]] = 0
      aged_types[#aged_types + 1] = row[TY]
    end
    aged[row[TY]] = aged[row[TY]] + 1
  end
end

local function forgotten(row)
  local state, until_ms = row[ST], tonumber(row[KU])
  return until_ms and until_ms <= now and (state == 'succeeded' or state == 'dead' or state == 'gone')
end

local EVENTS = 10000 -- kept, about

local function tell(kind, id, type_, n, row, why)
  local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
  redis.pcall('XADD', prefix .. 'events', 'MAXLEN', '~', EVENTS, seq .. '-0', 'kind', kind, 'at', ms(now), 'id', id,
    'type', type_, 'n', n, 'reason', row and row[RS] or '', 'fingerprint',
    row and row[FP] or '', 'why', why or '')
  told = true
end

local function orphan(id) -- an index entry whose record somebody deleted
  count(cjson.encode({'orphans', '', ''}), 1)
  tell('lost', id, '', 1, nil, 'its record is missing')
end

local function save(id, row)
  records[#records + 1] = prefix .. 't:' .. id
  records[#records + 1] = table.concat(row, '\31')
end

local function set_body(id, body) -- false: away
  bodies[id] = body
end

local function finish_records()
  for id, body in pairs(bodies) do
    local key = prefix .. 'p:' .. id
    if body then
      records[#records + 1] = key
      records[#records + 1] = body
    else
      deleted[#deleted + 1] = key
    end
  end
  if #records > 0 then
    redis.call('MSET', unpack(records))
  end
  if #deleted > 0 then
    redis.call('UNLINK', unpack(deleted))
  end
end

local function finish_lines()
  for name in pairs(touched) do
    local types, type_ = prefix .. 'types:' .. string.sub(name, 1, 1), string.sub(name, 3)
    local head = redis.call('ZRANGE', prefix .. 'due:' .. name, 0, 0, 'WITHSCORES')[2]
    local was = tonumber(redis.call('ZSCORE', types, type_))
    if not head then
      redis.call('ZREM', types, type_)
    elseif was ~= tonumber(head) then
      redis.call('ZADD', types, head, type_)
      work = work or not was or tonumber(head) < was -- who sleeps until the earliest due wants to know
    end
  end
end

local function finish_counts(key, sums)
  for field, n in pairs(sums) do
    if n ~= 0 and redis.call('HINCRBY', prefix .. key, field, n) == 0 then
      redis.call('HDEL', prefix .. key, field)
    end
  end
end

local function finish()
  finish_records()
  for set, members in pairs(moves) do
    local adds, rems = {}, {}
    for id, score in pairs(members) do
      if score then
        adds[#adds + 1] = score
        adds[#adds + 1] = id
      else
        rems[#rems + 1] = id
      end
    end
    for at = 1, #rems, 1000 do
      redis.call('ZREM', prefix .. set, unpack(rems, at, math.min(at + 999, #rems)))
    end
    for at = 1, #adds, 1000 do
      redis.call('ZADD', prefix .. set, unpack(adds, at, math.min(at + 999, #adds)))
    end
  end
  finish_lines()
  finish_counts('tally', tally)
  finish_counts('stats', stats)
  if work or told then
    local bell = string.gsub(prefix, ':%d+}:$', ':0}:') .. 'bell' -- all shards of a queue ring one
    redis.pcall('PUBLISH', bell, told and 'event' or 'work') -- a user may be allowed no channel
  end
end
