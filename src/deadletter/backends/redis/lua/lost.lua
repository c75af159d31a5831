-- Letters whose record somebody deleted behind our back: what still knows of them is taken back. Each sweep looks at some
-- letters, from another place each time, so that all of them are met in the end.
local LOOK, STEPS = 100, 500 -- letters that are looked at; tally fields and causes that may be compared with lost ones

local function is_in(set, id)
  return redis.call('ZSCORE', prefix .. set, id)
end

-- Fields of a hash that begin so, each split by a pattern, with its count.
local function fields_of(hash, pattern)
  local found, told = {}, redis.call('HGETALL', prefix .. hash)
  for at = 1, #told, 2 do
    local parts = {string.match(told[at], pattern)}
    if parts[1] then
      parts.field, parts.n = told[at], num(told[at + 1])
      found[#found + 1] = parts
    end
  end
  return found
end

local function counted_out_of_tally(id, fields)
  local found
  for _, parts in ipairs(fields) do
    local rank, length, rest = parts[1], num(parts[2]), parts[3]
    local reason, type_ = string.sub(rest, 1, length), string.sub(rest, length + 1)
    if (not found or found.reason == '') and is_in('dead:' .. rank, id) and is_in('dx:type:' .. type_, id)
      and (reason == '' or is_in('dx:reason:' .. reason, id)) then
      found = {field = parts.field, rank = rank, reason = reason, type = type_}
    end
  end
  return found
end

-- Which release it died of nobody knows any more: the most likely one, so that the sum is right.
local function counted_out_of_causes(id, was, fields)
  local found
  for _, parts in ipairs(fields) do
    local print = parts[1]
    local like = parts[2] == was.type and parts[3] == was.reason and (print == '' or is_in('dx:fp:' .. print, id))
    if like and (not found or (found[1] == '' and print ~= '') or (print ~= '' and parts.n > found.n)) then
      found = parts
    end
  end
  return found
end

local function lose_letter(id, tally_fields, cause_fields)
  count(cjson.encode({'orphans', '', ''}), 1)
  tell('lost', id, '', 1, nil, 'its record is missing')
  wipe(id)
  deleted[#deleted + 1] = prefix .. 'p:' .. id
  place('dead', id, false)
  place('keep', id, false)
  local was = counted_out_of_tally(id, tally_fields)
  if not was then
    return
  end
  tally[was.field] = (tally[was.field] or 0) - 1
  place('dead:' .. was.rank, id, false)
  place('dx:type:' .. was.type, id, false)
  place('dx:reason:' .. was.reason, id, false)
  local cause = counted_out_of_causes(id, was, cause_fields)
  if cause then
    causes[cause.field] = (causes[cause.field] or 0) - 1
    cause.n = cause.n - 1
    place('dx:fp:' .. cause[1], id, false)
  end
end

local function look_for_lost()
  local all = redis.call('ZCARD', prefix .. 'dead')
  if all == 0 then
    return
  end
  local first = all > LOOK and now % (all - LOOK + 1) or 0
  local ids = redis.call('ZRANGE', prefix .. 'dead', first, first + LOOK - 1)
  local lost = {}
  for at, record in ipairs(redis.call('MGET', unpack(keys_of('t:', ids)))) do
    if not record then
      lost[#lost + 1] = ids[at]
    end
  end
  local fields = #lost > 0 and redis.call('HLEN', prefix .. 'tally') + redis.call('HLEN', prefix .. 'causes') or 0
  if #lost == 0 or fields > STEPS then
    return
  end
  local tally_fields = fields_of('tally', '^dead (%d) (%d+) (.*)$')
  local cause_fields = fields_of('causes', '^([^\31]*)\31([^\31]*)\31([^\31]*)\31')
  for n = 1, math.min(#lost, math.max(1, math.floor(STEPS / math.max(1, fields)))) do
    lose_letter(lost[n], tally_fields, cause_fields)
  end
end
