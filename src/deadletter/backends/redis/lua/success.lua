-- The change that is most common, without taking the whole record apart: a first or later attempt succeeded, and the row
-- had no failure. All that apply.lua would do, at two thirds of the cost; what is any different is left to it.
local LIKE = '^([^\31]*)\31running\31([^\31]+)\31([^\31]*)\31' -- format, token, op
  .. string.rep('[^\31]*\31', 3) -- lease, owner, started
  .. '([^\31]*\31[^\31]*\31[^\31]*)\31([^\31]*)\31([^\31]*)\31' -- alone to generation, attempts, losses
  .. '[^\31]*\31\31' -- expiry, no failures
  .. '(' .. string.rep('[^\31]*\31', 4) .. ')' -- postpones to due
  .. string.rep('\31', 6) -- end, keep, reason and the cause are empty
  .. '([^\31]*)\31([^\31]*)\31([^\31]*)\31([^\31]*)\31' -- release, priority, type, created
  .. '([^\31]*\31[^\31]*\31[^\30\31]*)(.?)' -- key to redact, and whether a body follows
local succeeded = {} -- by priority and type, as in the tally

-- Whether a kind of change, counted as in apply.lua, is a success and nothing else.
local function is_success(was, to, attempts, others)
  return was == 'running' and to == 'succeeded' and attempts == '1' and table.concat(others) == ''
end

-- The record after it, or nil where it is for apply.lua to tell.
local function succeed(id, record, token, op, keep_until)
  local format, held, last, middle, attempts, losses, times, release, rank, type_, created, rest, mark =
    string.match(record, LIKE)
  if held ~= token or last == op or newer(format) or mark == '\31' then
    return nil
  end
  place('lease', id, false)
  place('live', id, false)
  place('done', id, created)
  if keep_until ~= '' then
    place('keep', id, keep_until)
  end
  if mark == '' then
    bodies[id] = false -- its body lies beside it
  end
  local name = rank .. ' 0 ' .. type_
  succeeded[name] = (succeeded[name] or 0) + 1
  attempts = attempts == '' and '1' or ms(num(attempts) + 1)
  return OURS .. '\31succeeded\31\31' .. op .. '\31\31\31\31' .. middle .. '\31' .. attempts .. '\31' .. losses .. '\31\31\31'
    .. times .. now_text .. '\31' .. keep_until .. '\31\31\31\31\31' .. release .. '\31' .. rank .. '\31' .. type_ .. '\31'
    .. created .. '\31' .. rest
end

local function count_succeeded()
  for name, n in pairs(succeeded) do
    tally['running ' .. name] = (tally['running ' .. name] or 0) - n
    tally['succeeded ' .. name] = (tally['succeeded ' .. name] or 0) + n
  end
end
