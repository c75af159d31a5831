#!lua
-- Store new rows, all or nothing; a full memory refuses it loudly.
-- include: prelude fresh rows journal
-- ARGV     now, kinds, rows, failures, traces (how many of each), then each kind (20 values), each row (9), each
--          failure (4: row, at or empty, the rest, trace), each trace (2: name, text)
-- answer   ok, now, then for each row up to the first conflict: stored | {word, id, state, generation, token, lease, body}
local KIND, NEW, FAILURE = 20, 9, 4
local kinds, news, failures, texts_n = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local kinds_at = 5
local news_at = kinds_at + kinds * KIND
local failures_at = news_at + news * NEW
local texts_at = failures_at + failures * FAILURE

local ids, keys, gone, stored, numbered = {}, {}, {}, {}, {}

local function bound(id) -- false: nobody
  if ids[id] == nil then
    local row = load(id)
    ids[id] = row and {id = id, row = row} or false
  end
  return ids[id]
end

local function by_key(key)
  if keys[key] == nil then
    local id = redis.call('GET', prefix .. 'k:' .. key)
    keys[key] = id and bound(id) or false
  end
  return keys[key]
end

local function make_room(found)
  if found and forgotten(found.row) then
    gone[#gone + 1] = found
    ids[found.id] = false
    local key = found.row[KE]
    if key ~= '' then
      keys[key] = false
    end
    return false
  end
  return found
end

-- A SHA-256 in hex as records.py shortens it: its first 132 bits. Format 1 has it whole.
local LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
local function shortened(digest)
  return (string.gsub(string.sub(digest, 1, 33), '...', function(three)
    local bits = tonumber(three, 16)
    if not bits then
      return nil
    end
    local high, low = math.floor(bits / 64) + 1, bits % 64 + 1
    return string.sub(LETTERS, high, high) .. string.sub(LETTERS, low, low)
  end))
end

-- What the rows of a kind have in common.
local function common(kind)
  local row, state = {}, ARGV[kind + 3]
  for n = 1, FIELDS do
    row[n] = ''
  end
  row[FM], row[ST], row[TK], row[OW] = OURS, state, ARGV[kind + 6], ARGV[kind + 8]
  row[SD], row[KP], row[AT], row[RE] = state == 'running' and '1' or '', ARGV[kind + 5], ARGV[kind + 11], ARGV[kind + 12]
  row[LL], row[PP] = ARGV[kind + 19], ARGV[kind + 20]
  row[RL], row[PR], row[TY], row[RD] = ARGV[kind + 10], ARGV[kind + 2], ARGV[kind + 1], ARGV[kind + 9]
  row[FP], row[ET], row[WO] = ARGV[kind + 13], ARGV[kind + 16], ARGV[kind + 17]
  if ARGV[kind + 4] ~= '' then
    row[EX] = ms(now + num(ARGV[kind + 4]))
  end
  if ARGV[kind + 7] ~= '' then
    row[LE] = ms(now + num(ARGV[kind + 7]))
  end
  if state == 'dead' then
    row[RS] = ARGV[kind + 14]
  end
  return row
end

-- A new row's fields.
local commons, members = {}, {} -- by kind: that, and how many rows are stored of it
local function built(at, kind)
  local due, created, ended = ARGV[at + 6], ARGV[at + 8], ARGV[at + 9]
  commons[kind] = commons[kind] or common(kind)
  local row = {unpack(commons[kind])}
  row[CR] = created ~= '' and created or now_text
  row[SI] = row[CR] ~= now_text and now_text or ''
  if due == '' then
    due = ARGV[at + 5] == '0' and now_text or ms(now + num(ARGV[at + 5]))
  end
  row[DU] = due ~= row[CR] and due or ''
  row[KE], row[DI] = ARGV[at + 2], ARGV[at + 3]
  if row[ST] == 'dead' then
    row[EN] = ended ~= '' and ended or now_text
    if ARGV[kind + 5] ~= '' then
      row[KU] = ms(num(row[EN]) + num(ARGV[kind + 5]))
    end
  end
  return row
end

local asked = {}
for n = 1, news do
  asked[n] = ARGV[news_at + (n - 1) * NEW + 1]
end
for n, record in ipairs(redis.call('MGET', unpack(keys_of('t:', asked)))) do
  ids[asked[n]] = record and {id = asked[n], row = parse(record)} or false
end

local answer = {'ok', now_text}
for n = 1, news do
  local at = news_at + (n - 1) * NEW
  local kind = kinds_at + (tonumber(ARGV[at + 7]) - 1) * KIND
  local id, key, digest = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local mine = make_room(bound(id))
  local other = key ~= '' and make_room(by_key(key))
  local found = mine or other
  if found then
    local row = found.row
    local same = row[DI] == digest or (#row[DI] == 64 and shortened(row[DI]) == digest)
    local word = same and 'exists' or (mine and 'task_conflict' or 'key_conflict')
    local body = false
    if row[ST] == 'succeeded' then
      body = row[BO] ~= '' and string.sub(row[BO], 3) or redis.call('GET', prefix .. 'p:' .. found.id)
    end
    answer[#answer + 1] = {word, found.id, row[ST], row[GE], row[TK], row[LE], body}
    if not same then
      return answer -- nothing has been written
    end
    local type_ = ARGV[kind + 1]
    count(cjson.encode({'duplicates', type_, row[ST]}), 1)
  else
    local new = {id = id, at = at, number = n, row = built(at, kind)}
    members[kind] = (members[kind] or 0) + 1
    stored[#stored + 1] = new
    numbered[n] = new
    ids[id] = new
    if key ~= '' then
      keys[key] = new
    end
    answer[#answer + 1] = 'stored'
  end
end

for _, found in ipairs(gone) do
  if found.number then -- kept for no time at all, and met again by the same call: never written
    found.gone = true
    if found.row[ST] == 'dead' then
      count(cjson.encode({'aged_out', found.row[TY], ''}), 1)
    end
  else
    forget(found.id, found.row)
  end
end
for type_, n in pairs(aged) do
  count(cjson.encode({'aged_out', type_, ''}), n)
end

delete_now()
redis.call('HSETNX', KEYS[1], 'format', FORMAT)
for n = 1, kinds do
  local kind = kinds_at + (n - 1) * KIND
  if ARGV[kind + 9] ~= '' then
    redis.call('HSETNX', prefix .. 'redacts', ARGV[kind + 9], ARGV[kind + 18])
  end
end
local trace_of = {}
for n = 1, texts_n do
  trace_of[ARGV[texts_at + n * 2 - 1]] = ARGV[texts_at + n * 2]
end
for n = 1, failures do
  local at = failures_at + (n - 1) * FAILURE
  local new = numbered[tonumber(ARGV[at + 1])]
  if new and not new.gone then
    local when = ARGV[at + 2] ~= '' and ARGV[at + 2] or now_text
    new.row[NF] = '1'
    add_failure(new.id, when .. ARGV[at + 3], ARGV[at + 4], trace_of[ARGV[at + 4]])
  end
end
for kind, n in pairs(members) do
  for counter in string.gmatch(ARGV[kind + 15], '[^\n]+') do
    count(counter, n)
  end
end
local bound_keys = {}
for _, new in ipairs(stored) do
  local row = new.row
  if row[ST] == 'dead' then
    tell('dead', new.id, row[TY], '1', row)
  end
  if not new.gone then
    enter(row, 1)
    index(new.id, row, true)
    if live(row) then
      place('live', new.id, row[CR])
    end
    set_body(new.id, row, ARGV[new.at + 4])
    save(new.id, row)
    if row[KE] ~= '' then
      bound_keys[#bound_keys + 1] = prefix .. 'k:' .. row[KE]
      bound_keys[#bound_keys + 1] = new.id
    end
  end
end
if #bound_keys > 0 then
  redis.call('MSET', unpack(bound_keys))
end
finish()
return answer
