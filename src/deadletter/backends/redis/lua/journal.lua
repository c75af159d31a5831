-- What a step changes beside its rows: indexes, tally, counters, events. Gathered, and written once by finish().
local into, out_of, tally, causes, stats, touched = {}, {}, {}, {}, {}, {}
local events, work = {}, false
local records, bodies, deleted = {}, {}, {} -- to set: keys and values in turn; to delete
local uses, trace_texts = {}, {} -- of tracebacks: how many more refer to it; texts that may be new
local now_text = ms(now)

-- score false: away from there. In finish() all leave before any enters, so that the last word on an id holds.
local function place(set, id, score)
  local members = into[set]
  if score then
    if not members then
      members = {}
      into[set] = members
    end
    members[id] = score
    return
  end
  if members then
    members[id] = nil
  end
  members = out_of[set]
  if not members then
    members = {}
    out_of[set] = members
  end
  members[#members + 1] = id
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
  local field = row[ST] .. ' ' .. row[PR] .. (reason == '' and ' 0 ' or ' ' .. #reason .. ' ' .. reason) .. row[TY]
  tally[field] = (tally[field] or 0) + n
  if row[ST] == 'dead' and row[FM] == OURS then -- format 1 did not count them
    local cause = row[FP] .. '\31' .. row[TY] .. '\31' .. reason .. '\31' .. row[RL]
    causes[cause] = (causes[cause] or 0) + n
  end
end

local function live(row)
  return row[ST] == 'pending' or row[ST] == 'running'
end

-- Take a row out of the indexes of its state (to = false), or put it into them; but for 'live', which two states share.
local function index(id, row, to)
  local state = row[ST]
  if state == 'pending' then
    local name, due = line(row), to and (row[DU] ~= '' and row[DU] or row[CR])
    place('due:' .. name, id, due)
    if row[LL] ~= '' and num(row[LL]) > 0 then
      place('lost:' .. name, id, due)
    end
    if row[EX] ~= '' then
      place('expires', id, to and row[EX])
    end
    return
  elseif state == 'running' then
    place('lease', id, to and row[LE])
    return
  elseif state == 'dead' then
    local ended = to and row[EN]
    place('dead', id, ended)
    place('dead:' .. row[PR], id, ended)
    place('dx:type:' .. row[TY], id, ended)
    if row[RS] ~= '' then
      place('dx:reason:' .. row[RS], id, ended)
    end
    if row[FP] ~= '' then
      place('dx:fp:' .. row[FP], id, ended)
    end
  elseif state == 'succeeded' then
    place('done', id, to and row[CR])
  end
  if row[KU] ~= '' then
    place('keep', id, to and row[KU])
  end
end

local function delete_now()
  for at = 1, #deleted, 1000 do
    redis.call('UNLINK', unpack(deleted, at, math.min(at + 999, #deleted)))
  end
  deleted = {}
end

local function add_failure(id, head, trace, text)
  if text then
    uses[trace] = (uses[trace] or 0) + 1
    trace_texts[trace] = text
  end
  return redis.call('RPUSH', prefix .. 'f:' .. id, trace .. head)
end

local function drop_failures(entries)
  for _, entry in ipairs(entries) do
    local trace = string.sub(entry, 1, 32)
    if string.byte(trace) ~= 45 then -- a "-": no traceback
      uses[trace] = (uses[trace] or 0) - 1
    end
  end
end

local function wipe(id)
  local key = prefix .. 'f:' .. id
  drop_failures(redis.call('LRANGE', key, '0', '-1'))
  deleted[#deleted + 1] = key
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
  deleted[#deleted + 1] = prefix .. 't:' .. id
  if row[BO] == '' then
    deleted[#deleted + 1] = prefix .. 'p:' .. id
  end
  if row[KE] ~= '' then
    deleted[#deleted + 1] = prefix .. 'k:' .. row[KE]
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

local function tell(kind, id, type_, n, row, why)
  local told = {'kind', kind, 'at', now_text, 'id', id, 'type', type_, 'n', n}
  if row and row[RS] ~= '' then
    told[11], told[12] = 'reason', row[RS]
  end
  if row and row[FP] ~= '' then
    told[#told + 1], told[#told + 2] = 'fingerprint', row[FP]
  end
  if why and why ~= '' then
    told[#told + 1], told[#told + 2] = 'why', why
  end
  events[#events + 1] = told
end

-- An index entry whose record somebody deleted: what else there is of it goes in the same step. One that waited is
-- counted out by the line where it was met; what type ran, nobody knows any more (recount_running).
local function orphan(id, line)
  count(cjson.encode({'orphans', '', ''}), 1)
  tell('lost', id, '', 1, nil, 'its record is missing')
  for _, set in ipairs({'live', 'expires', 'lease'}) do
    place(set, id, false)
  end
  wipe(id)
  deleted[#deleted + 1] = prefix .. 'p:' .. id
  if line then
    place('due:' .. line, id, false)
    place('lost:' .. line, id, false)
    touched[line] = true
    local field = 'pending ' .. string.sub(line, 1, 1) .. ' 0 ' .. string.sub(line, 3)
    tally[field] = (tally[field] or 0) - 1
  end
end

local FEW = 500 -- rows or fields that are counted anew

-- Where nothing that runs has been entered in this step.
local function recount_running()
  local ids = redis.call('ZRANGE', prefix .. 'lease', '0', FEW)
  if #ids == 0 or #ids > FEW or redis.call('HLEN', prefix .. 'tally') > FEW then
    return
  end
  local found = {}
  for _, record in ipairs(redis.call('MGET', unpack(keys_of('t:', ids)))) do
    local row = record and parse(record)
    if row and row[ST] == 'running' then
      local field = 'running ' .. row[PR] .. ' 0 ' .. row[TY]
      found[field] = (found[field] or 0) + 1
    end
  end
  local told = redis.call('HGETALL', prefix .. 'tally')
  for at = 1, #told, 2 do
    if string.sub(told[at], 1, 8) == 'running ' then
      tally[told[at]] = (found[told[at]] or 0) - tonumber(told[at + 1])
    end
  end
end

local function save(id, row)
  records[#records + 1] = prefix .. 't:' .. id
  records[#records + 1] = type(row) == 'string' and row or text_of(row)
end

local function set_body(id, row, body) -- false: away
  local beside = row[BO] == '' -- or it has none; of a new row it is nil
  row[BO] = ''
  if body and #body > INLINE then
    bodies[id] = body
    return
  elseif body then
    row[BO] = '\30\30' .. body
  end
  if beside then
    bodies[id] = false
  end
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
  delete_now()
end

local function finish_sets()
  for set, ids in pairs(out_of) do
    for at = 1, #ids, 1000 do
      redis.call('ZREM', prefix .. set, unpack(ids, at, math.min(at + 999, #ids)))
    end
  end
  for set, members in pairs(into) do
    local pairs_ = {}
    for id, score in pairs(members) do
      pairs_[#pairs_ + 1] = score
      pairs_[#pairs_ + 1] = id
    end
    for at = 1, #pairs_, 1000 do
      redis.call('ZADD', prefix .. set, unpack(pairs_, at, math.min(at + 999, #pairs_)))
    end
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

local function finish_traces()
  for trace, n in pairs(uses) do
    local left = n ~= 0 and redis.call('HINCRBY', prefix .. 'uses', trace, n)
    if left and left <= 0 then
      redis.call('HDEL', prefix .. 'uses', trace)
      redis.call('HDEL', prefix .. 'traces', trace)
    elseif left and left == n then -- nothing referred to it
      redis.call('HSET', prefix .. 'traces', trace, trace_texts[trace])
    end
  end
end

local EVENTS = '10000' -- kept, about

local function finish_events()
  if #events == 0 then
    return
  end
  local seq, key = redis.call('HINCRBY', KEYS[1], 'seq', #events) - #events, prefix .. 'events'
  for n, told in ipairs(events) do
    redis.pcall('XADD', key, 'MAXLEN', '~', EVENTS, ms(seq + n) .. '-0', unpack(told))
  end
end

local function finish()
  finish_records()
  finish_sets()
  finish_lines()
  finish_counts('tally', tally)
  finish_counts('causes', causes)
  finish_counts('stats', stats)
  finish_traces()
  finish_events()
  if work or #events > 0 then
    local bell = string.gsub(prefix, ':%d+}:$', ':0}:') .. 'bell' -- all shards of a queue ring one
    redis.pcall('PUBLISH', bell, #events > 0 and 'event' or 'work') -- a user may be allowed no channel
  end
end
