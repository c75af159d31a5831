-- What every script begins with: the slot probe, the clock, and how a record reads.
-- ARGV[1]  now in ms where a test sets the clock, else empty: the server's own
-- Answers are tables whose first element is a word: ok, or moving (the slot is on its way to another node).
local prefix = string.sub(KEYS[1], 1, -5)
local probe = redis.pcall('EXISTS', prefix .. 'never')
if type(probe) == 'table' and probe.err then
  return {'moving'}
end
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local FORMAT = 2
-- A record, t:<id>, is its fields in this order with \31 between them; an empty one is None, 0 or false. What a claim
-- changes comes first. NF: it has failures. SI and DU are empty where they equal CR. A newer format may append fields.
-- After the last one \30\30 and the body, where that is short: BO, with its mark. Format 1 has no body in its records.
local FM, ST, TK, OP, LE, OW, SD, AL, KP, GE, AT, LL, EX, NF, PP, RE, SI, DU, EN, KU, RS, FP, ET, WO, RL, PR, TY, CR, KE,
  DI, RD, BO = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32
local FIELDS = 31
local INLINE = 512 -- a body of at most so many bytes lies in its record

local function ms(number) -- whole: tostring would write a far date as 2.5e+14
  return string.format('%d', number)
end

local function num(text)
  return tonumber(text) or 0
end

local OURS = ms(FORMAT)
local function newer(format) -- than we can read
  return format ~= OURS and num(format) > FORMAT
end
