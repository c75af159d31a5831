#!lua flags=allow-oom
-- Forget rows past their keep; answer those whose lease lapsed or that expired.
-- include: prelude rows journal lost
-- ARGV     now, limit
-- answer   ok, now, texts, more, rows (both as in rows.lua)
local limit = tonumber(ARGV[2])

local function upto_now(set, n)
  return redis.call('ZRANGEBYSCORE', prefix .. set, '-inf', ms(now), 'LIMIT', 0, n)
end

local past = upto_now('keep', limit)
for at, record in ipairs(#past > 0 and redis.call('MGET', unpack(keys_of('t:', past))) or past) do
  local row = record and parse(record)
  if row and forgotten(row) then
    forget(past[at], row)
  elseif row or not redis.call('ZSCORE', prefix .. 'dead', past[at]) then -- a lost letter is told further down
    place('keep', past[at], false)
  end
end
for _, type_ in ipairs(aged_types) do
  count(cjson.encode({'aged_out', type_, ''}), aged[type_])
  tell('purged', '', type_, aged[type_], nil, 'past its keep')
end

local recount = false
local function late(set, state, field)
  for _, id in ipairs(upto_now(set, limit - #told_rows / 2)) do
    local row, record = load(id)
    if row and row[ST] == state and num(row[field]) <= now then
      local body = not body_at(record) and redis.call('GET', prefix .. 'p:' .. id)
      tell_row(id, record, row[NF] ~= '', 1, body)
    else -- an entry whose record somebody deleted
      place(set, id, false)
      if not row and set == 'lease' then -- one that waited is met where it waits
        orphan(id)
        recount = true
      end
    end
  end
end
late('lease', 'running', LE)
if #told_rows / 2 < limit then
  late('expires', 'pending', EX)
end
if recount then
  recount_running()
end
look_for_lost()
finish()
return {'ok', now_text, texts(), more, told_rows}
