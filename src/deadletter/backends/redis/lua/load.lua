#!lua flags=no-writes,allow-stale
-- Rows by id.
-- include: prelude rows
-- ARGV     now, history, ids ...
-- answer   ok, now, texts, row or false for each id
local history, ids = tonumber(ARGV[2]), {}
for at = 3, #ARGV do
  ids[#ids + 1] = ARGV[at]
end
local answer = {'ok', ms(now), false}
local found = redis.call('MGET', unpack(keys_of('t:', ids)))
local bodies = redis.call('MGET', unpack(keys_of('p:', ids)))
for at, record in ipairs(found) do
  local row = record and parse(record)
  answer[#answer + 1] = row and whole(ids[at], record, row[RD], row[NF] ~= '', history, bodies[at]) or false
end
answer[3] = texts()
return answer
