#!lua flags=allow-oom
-- Forget rows past their keep; answer those whose lease lapsed or that expired.
-- include: prelude rows journal
-- ARGV     now, limit
-- answer   ok, now, texts, rows ...
local limit = tonumber(ARGV[2])

local function upto_now(set, n)
  return redis.call('ZRANGEBYSCORE', prefix .. set, '-inf', ms(now), 'LIMIT', 0, n)
end

for _, id in ipairs(upto_now('keep', limit)) do
  local row = load(id)
  if row and forgotten(row) then
    forget(id, row)
  else
    place('keep', id, false)
  end
end
for _, type_ in ipairs(aged_types) do
  count(cjson.encode({'aged_out', type_, ''}), aged[type_])
  tell('purged', '', type_, aged[type_], nil, 'past its keep')
end

local rows = {}
local function late(set, state, field)
  for _, id in ipairs(upto_now(set, limit - #rows)) do
    local row, record = load(id)
    if row and row[ST] == state and num(row[field]) <= now then
      rows[#rows + 1] = whole(id, record, row[RD], row[NF] ~= '', 1, redis.call('GET', prefix .. 'p:' .. id))
    else -- an entry whose record somebody deleted
      place(set, id, false)
      if not row then
        place('live', id, false)
        orphan(id)
      end
    end
  end
end
late('lease', 'running', LE)
if #rows < limit then
  late('expires', 'pending', EX)
end
finish()
return {'ok', ms(now), texts(), unpack(rows)}
