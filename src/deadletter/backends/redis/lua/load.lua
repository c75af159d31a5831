#!lua flags=no-writes,allow-stale
-- Rows by id.
-- include: prelude rows
-- ARGV     now, history, ids ...
-- answer   ok, now, texts, more, rows (both as in rows.lua; false for the record of an id that nobody has)
local history, ids = tonumber(ARGV[2]), {}
for at = 3, #ARGV do
  ids[#ids + 1] = ARGV[at]
end
local found = redis.call('MGET', unpack(keys_of('t:', ids)))
local asked = {}
for at, record in ipairs(found) do
  asked[#asked + 1] = ids[at]
  asked[#asked + 1] = record
end
local beside = bodies_beside(asked)
for at, record in ipairs(found) do
  local has_failures = record and history > 0 and parse(record)[NF] ~= ''
  tell_row(ids[at], record, has_failures, history, beside[ids[at]])
end
return {'ok', ms(now), texts(), more, told_rows}
