#!lua flags=no-writes,allow-stale
-- Rows by id.
-- include: prelude rows
-- ARGV     now, history, ids ...
-- answer   ok, now, texts, row or false for each id
local answer = {'ok', ms(now), false}
for at = 3, #ARGV do
  local row = load(ARGV[at])
  answer[#answer + 1] = row and whole(ARGV[at], row, tonumber(ARGV[2]), redis.call('GET', prefix .. 'p:' .. ARGV[at]))
    or false
end
answer[3] = texts()
return answer
