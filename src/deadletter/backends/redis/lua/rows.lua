-- Whole rows for an answer: fields, body, failures; and beside them the texts that they share.
local redacts, traces, trace_names = {}, {}, {}

local function load(id)
  local row = redis.call('HMGET', prefix .. 't:' .. id, unpack(FIELDS))
  return row[ST] and row or nil
end

-- The row as it is answered: its id, FIELDS, body, failures.
local function whole(id, row, history, body)
  local rd = row[RD]
  if rd and rd ~= '' and redacts[rd] == nil then
    redacts[rd] = redis.call('HGET', prefix .. 'redacts', rd) or ''
  end
  local failures = {}
  if history > 0 and ((row[ET] and row[ET] ~= '') or num(row[RE]) > 0) then
    failures = redis.call('LRANGE', prefix .. 'f:' .. id, -history, -1)
    for _, failure in ipairs(failures) do
      local name = string.sub(failure, 1, 32)
      if traces[name] == nil then
        traces[name] = true
        trace_names[#trace_names + 1] = name
      end
    end
  end
  row[#FIELDS + 1] = body or false
  row[#FIELDS + 2] = failures
  row[#FIELDS + 3] = id
  return row
end

-- What rows refer to, as names and texts in turn.
local function texts()
  local told = {}
  for name, text in pairs(redacts) do
    told[#told + 1] = name
    told[#told + 1] = text
  end
  for at = 1, #trace_names, 500 do
    local last = math.min(at + 499, #trace_names)
    local found = redis.call('HMGET', prefix .. 'traces', unpack(trace_names, at, last))
    for offset, text in ipairs(found) do
      told[#told + 1] = trace_names[at + offset - 1]
      told[#told + 1] = text or ''
    end
  end
  return told
end
