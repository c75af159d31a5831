-- Records to read, and rows for an answer: id and record in turn, with the body in the record or stripped of it; more of
-- some of them: number, from 0, body or false, failures; and the texts that failures share.
local PATTERN = '^' .. string.rep('([^\31]*)\31', FIELDS - 1) .. '([^\30\31]*)(.*)'
local NOTE = '^[^|]*|%[[^,]*,[^,]*,"deadletter%.Edited",'
local told_rows, more, traces, trace_names = {}, {}, {}, {}

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

local function text_of(row)
  return table.concat(row, '\31', 1, FIELDS) .. row[BO]
end

-- Where the body begins in a record, after its mark; nil where it has a key of its own, or there is none.
local function body_at(record)
  local _, last = string.find(record, '\30\30', 1, true)
  return last and last + 1
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

-- The bodies that lie beside their records, by id.
local function bodies_beside(found) -- {id, record} in turn
  local ids, bodies = {}, {}
  for at = 1, #found, 2 do
    if found[at + 1] and not body_at(found[at + 1]) then
      ids[#ids + 1] = found[at]
    end
  end
  if #ids > 0 then
    for at, body in ipairs(redis.call('MGET', unpack(keys_of('p:', ids)))) do
      bodies[ids[at]] = body
    end
  end
  return bodies
end

-- As machine.brought: for 1 the last failure, which the note of an edit is not.
local function brought(id, history)
  local key = prefix .. 'f:' .. id
  local entries = redis.call('LRANGE', key, '-' .. history, '-1')
  if history > 1 or #entries == 0 or not string.match(entries[1], NOTE) then
    return entries
  end
  entries = redis.call('LRANGE', key, '0', '-1')
  for at = #entries, 1, -1 do
    if not string.match(entries[at], NOTE) then
      return {entries[at]}
    end
  end
  return {}
end

-- Put a row into the answer; false for record: there is none.
local function tell_row(id, record, has_failures, history, body)
  told_rows[#told_rows + 1], told_rows[#told_rows + 2] = id, record
  local failures = history > 0 and has_failures and brought(id, history) or {}
  for _, failure in ipairs(failures) do
    local name = string.sub(failure, 1, 32)
    if traces[name] == nil then
      traces[name] = true
      trace_names[#trace_names + 1] = name
    end
  end
  if body or #failures > 0 then
    more[#more + 1], more[#more + 2], more[#more + 3] = #told_rows / 2 - 1, body or false, failures
  end
end

-- The tracebacks that rows refer to, as names and texts in turn.
local function texts()
  local told = {}
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
