#!lua flags=allow-oom
-- Apply changes in order, each on its own: the machine of rules/machine.py, stated once more.
-- include: prelude rows journal success
-- ARGV     now, kinds, changes, traces (how many of each), then each kind (25 values), each change (9), each trace (2)
-- answer   ok, now, a verdict for each: done | repeated | stale | missing
local KIND, CHANGE = 25, 9
local kinds_n, changes, traces_n = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local changes_at = 4 + kinds_n * KIND
local traces_at = changes_at + changes * CHANGE
local HISTORY = 20
local WAS, LAPSED, LATE, TO, DUE, LEASE, KEEP, ATTEMPTS, LOSSES, POSTPONES, RESET, REVIVE, STARTED, OWNER, TYPE, REASON,
  BODY, FREE, EVENT, WHY, COUNTS, F_PRINT, F_TYPE, F_WORKER, F_RELEASE =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25

local kinds = {}
for n = 1, kinds_n do
  local at = 4 + (n - 1) * KIND
  local kind = {}
  for field = 1, KIND do
    kind[field] = ARGV[at + field]
  end
  kind.counters, kind.done = {}, 0
  kind.keep_until = kind[KEEP] ~= '' and ms(now + tonumber(kind[KEEP])) or ''
  for counter in string.gmatch(kind[COUNTS], '[^\n]+') do
    kind.counters[#kind.counters + 1] = counter
  end
  kind.succeeds = is_success(kind[WAS], kind[TO], kind[ATTEMPTS], {
    kind[LAPSED], kind[DUE], kind[LOSSES], kind[POSTPONES], kind[RESET], kind[REVIVE], kind[STARTED], kind[TYPE],
    kind[REASON], kind[BODY], kind[FREE], kind[EVENT],
  })
  kinds[ms(n)] = kind
end
local trace_of = {}
for n = 1, traces_n do
  trace_of[ARGV[traces_at + n * 2 - 1]] = ARGV[traces_at + n * 2]
end

local function fence(row, op, kind, token, generation)
  if not row then
    return 'missing'
  elseif row[OP] == op and op ~= '' then
    return 'repeated'
  elseif row[ST] == 'gone' then
    return 'missing'
  end
  local held = row[ST] == kind[WAS]
  local mine = row[TK]
  if not held and kind[LATE] == '1' and row[ST] == 'pending' and mine ~= '' then
    held = mine == token
  end
  if not held or newer(row[FM]) or (token ~= '' and mine ~= token) then
    return 'stale'
  end
  if generation ~= '' and num(row[GE]) ~= tonumber(generation) then
    return 'stale'
  end
  if kind[LAPSED] == '1' then
    local limit = tonumber(row[row[ST] == 'running' and LE or EX])
    if not limit or limit > now then
      return 'stale'
    end
  end
  return nil
end

local function add(row, field, n)
  if n ~= '' then
    row[field] = ms(num(row[field]) + tonumber(n))
  end
end

local function counted(id, row, kind, body)
  add(row, AT, kind[ATTEMPTS])
  add(row, LL, kind[LOSSES])
  add(row, PP, kind[POSTPONES])
  if kind[ATTEMPTS] ~= '' or kind[LOSSES] ~= '' then
    row[EX] = '' -- "expired" is for what never got a chance
  end
  if kind[RESET] == '1' then
    row[AT] = ''
  end
  if kind[REVIVE] == '1' then
    add(row, RE, 1)
    add(row, GE, 1)
    row[LL], row[EX], row[EN], row[KU], row[RS], row[AL] = '', '', '', '', '', ''
    row[SI] = now_text
  end
  if kind[TYPE] ~= '' then
    row[TY] = kind[TYPE]
  end
  if kind[BODY] == '1' then
    set_body(id, row, body)
  end
end

local function ended(id, row, kind)
  row[EN], row[EX] = now_text, ''
  row[KU] = kind.keep_until
  if kind[TO] ~= 'dead' then
    if kind[BODY] ~= '1' then
      set_body(id, row, false)
    end
    if row[NF] ~= '' then
      wipe(id)
      row[NF] = ''
    end
    row[FP], row[ET], row[WO], row[RS] = '', '', '', ''
  end
end

local function moved(id, row, kind, new_token)
  row[ST] = kind[TO]
  if kind[DUE] ~= '' then
    row[DU] = ms(now + tonumber(kind[DUE]))
  end
  if kind[REASON] ~= '' then
    row[RS] = kind[REASON]
  end
  if kind[STARTED] ~= '' then
    row[SD] = kind[STARTED] == '1' and '1' or ''
  end
  if kind[TO] == 'running' then
    if kind[LEASE] ~= '' then
      row[LE] = ms(now + tonumber(kind[LEASE]))
    end
    if new_token ~= '' then
      row[TK], row[OW] = new_token, kind[OWNER]
    end
    return
  end
  row[LE], row[OW], row[SD] = '', '', ''
  if kind[LAPSED] ~= '1' then
    row[TK] = '' -- after a lapse it stays, so that a late settle can still be told from a stranger's
  end
  if kind[TO] ~= 'pending' then
    ended(id, row, kind)
  end
end

local function failed_now(id, row, kind, failure, trace)
  row[NF] = '1'
  local n = add_failure(id, now_text .. failure, trace, trace_of[trace])
  if n > HISTORY then
    drop_failures({redis.call('LPOP', prefix .. 'f:' .. id)})
  end
  if kind[REVIVE] ~= '1' then -- the note of an edit: what it died of stays
    row[FP], row[ET], row[WO], row[RL] = kind[F_PRINT], kind[F_TYPE], kind[F_WORKER], kind[F_RELEASE]
  end
end

local function settled(id, row, lived) -- in its new state
  if row[ST] ~= 'gone' then
    enter(row, 1)
  end
  index(id, row, true)
  if live(row) ~= lived then
    place('live', id, not lived and row[CR])
  end
end

local asked, seen = {}, {}
for n = 1, changes do
  local id = ARGV[changes_at + (n - 1) * CHANGE + 1]
  if seen[id] == nil then
    seen[id] = false
    asked[#asked + 1] = id
  end
end
for n, record in ipairs(redis.call('MGET', unpack(keys_of('t:', asked)))) do
  seen[asked[n]] = record -- taken apart once it is needed
end

-- Only its lease, if anything: it stays where it is, but for that.
local function stays(row, kind)
  return row[ST] == 'running' and kind[TO] == 'running' and kind[TYPE] == '' and kind[REASON] == ''
end

local answer, changed = {'ok', now_text}, {}
for n = 1, changes do
  local at = changes_at + (n - 1) * CHANGE
  local id, op, kind = ARGV[at + 1], ARGV[at + 2], kinds[ARGV[at + 3]]
  local row, token, generation, verdict = seen[id], ARGV[at + 4], ARGV[at + 5], nil
  if type(row) == 'string' then
    local after = kind.succeeds and generation == '' and ARGV[at + 8] == '' and succeed(id, row, token, op, kind.keep_until)
    if after then
      seen[id], changed[id], verdict = after, true, 'done'
      kind.done = kind.done + 1
    else
      row = parse(row)
      seen[id] = row
    end
  end
  verdict = verdict or fence(row, op, kind, token, generation)
  if not verdict then
    local lived, same_place = live(row), stays(row, kind)
    if not same_place then
      enter(row, -1)
      index(id, row, false)
    end
    row[FM], row[OP] = OURS, op
    counted(id, row, kind, ARGV[at + 7])
    moved(id, row, kind, ARGV[at + 6])
    if ARGV[at + 8] ~= '' then
      failed_now(id, row, kind, ARGV[at + 8], ARGV[at + 9])
    end
    if kind[FREE] == '1' then
      if row[KE] ~= '' then
        deleted[#deleted + 1] = prefix .. 'k:' .. row[KE]
      end
      row[KE] = ''
    end
    if not same_place then
      settled(id, row, lived)
    elseif kind[LEASE] ~= '' then
      place('lease', id, row[LE])
    end
    kind.done = kind.done + 1
    if kind[EVENT] ~= '' then
      tell(kind[EVENT], id, row[TY], '1', row, kind[WHY])
    end
    verdict = 'done'
    changed[id] = true
  end
  answer[n + 2] = verdict
end
for id in pairs(changed) do
  save(id, seen[id])
end
count_succeeded()
for _, kind in pairs(kinds) do
  if kind.done > 0 then
    for _, counter in ipairs(kind.counters) do
      count(counter, kind.done)
    end
  end
end
finish()
return answer
