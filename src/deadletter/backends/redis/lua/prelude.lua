-- What every script begins with: the slot probe, the clock, and how a row reads.
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
local FORMAT = 1
-- Fields of t:<id>, in the order of Row; one that is missing or empty is None, 0 or false.
local FIELDS = {
  'ty', 'pr', 'st', 'tk', 'op', 'ge', 'at', 'll', 'pp', 're', 'sd', 'al', 'cr', 'si', 'du', 'en', 'ex', 'le', 'ku',
  'kp', 'ke', 'di', 'ow', 'rs', 'fp', 'et', 'wo', 'rl', 'rd', 'fm',
}
local TY, PR, ST, TK, OP, GE, AT, LL, PP, RE, SD, AL, CR, SI, DU, EN, EX, LE, KU =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19
local KE, DI, RS, FP, ET, RD, FM = 21, 22, 24, 25, 26, 29, 30

local function ms(number) -- whole: tostring would write a far date as 2.5e+14
  return string.format('%.0f', number)
end

local function num(text)
  return tonumber(text) or 0
end
