-- Records to read, and whole rows for an answer: {id, record, body, failures}, and beside them the texts that they share.
local PATTERN = '^' .. string.rep('([^\31]*)\31', FIELDS - 1) .. '([^\31]*)'
local HEAD = '^' .. string.rep('([^\31]*)\31', NF) .. '()' -- what a claim looks at, and where the rest begins
local NOTE = '^[^|]*|%[[^,]*,[^,]*,"deadletter%.Edited",'
local redacts, traces, trace_names = {}, {}, {}

local function below(x, y) -- by bytes, as sorted sets do; < would ask the locale
  for at = 1, math.min(#x, #y) do
    local p, q = string.byte(x, at), string.byte(y, at)
    if p ~= q then
      return p < q
    end
  end
  return #x < #y
end

local function parse(record)
  return {string.match(record, PATTERN)}
end

local function load(id)
  local record = redis.call('GET', prefix .. 't:' .. id)
  if record then
    return parse(record), record
  end
  return nil
end

local function keys_of(kind, ids, from, to)
  local keys = {}
  for at = from or 1, to or #ids do
    keys[#keys + 1] = prefix .. kind .. ids[at]
  end
  return keys
end

-- As machine.brought: for 1 the last failure, which the note of an edit is not.
local function brought(id, history)
  local key = prefix .. 'f:' .. id
  local entries = redis.call('LRANGE', key, -history, -1)
  if history > 1 or #entries == 0 or not string.match(entries[1], NOTE) then
    return entries
  end
  entries = redis.call('LRANGE', key, 0, -1)
  for at = #entries, 1, -1 do
    if not string.match(entries[at], NOTE) then
      return {entries[at]}
    end
  end
  return {}
end

local function whole(id, record, rd, has_failures, history, body)
  if rd ~= '' and redacts[rd] == nil then
    redacts[rd] = redis.call('HGET', prefix .. 'redacts', rd) or ''
  end
  local failures = {}
  if history > 0 and has_failures then
    failures = brought(id, history)
    for _, failure in ipairs(failures) do
      local name = string.sub(failure, 1, 32)
      if traces[name] == nil then
        traces[name] = true
        trace_names[#trace_names + 1] = name
      end
    end
  end
  return {id, record, body or false, failures}
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
