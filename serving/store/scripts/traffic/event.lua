-- What the scripts that append to the outcomes stream share; each of them begins with this one.
-- KEYS[1] the outcomes stream, KEYS[2] how many of its events a model with an encoder has been
-- given, by encoder, then one decision key per item. ARGV[1] now in ms, ARGV[2] the reward window
-- in ms.
local names = {'quality', 'latency_ms', 'cost_usd', 'error'}
local fields = {'arm', 'x', 'list_cost_usd', 'version', 'encoder', 'made_at_ms', 'propensity',
  'quality', 'latency_ms', 'cost_usd', 'error', 'executed_arm', 'executed_list_cost_usd',
  'executed', 'catalog', 'eligible', 'shadow', 'challenger_x', 'taught', 'corrected_by',
  'quality_assumed', 'asked', 'place', 'taken', 'took_tokens', 'took_usd', 'plan', 'attempts',
  'draw', 'session'}

-- The id of the caller's key that an item came with, where it came with one.
local reporter = ''

-- A decision by field; what it hasn't is false. `reported` are the values that were corrected.
local function decision(key)
  local d, reported = {}, {}
  local values = redis.call('HMGET', key, unpack(fields))
  for i = 1, #fields do d[fields[i]] = values[i] end
  if d.corrected_by then
    values = redis.call('HMGET', key, 'reported_quality', 'reported_latency_ms',
      'reported_cost_usd')
    for i = 1, 3 do reported[names[i]] = values[i] end
  end
  d.reported = reported
  return d
end

local function is_late(d)
  return (tonumber(ARGV[1]) - tonumber(d.made_at_ms) > tonumber(ARGV[2])) and 1 or 0
end

-- The encoders whose contexts the decision's events hold.
local function encoders(d)
  if d.challenger_x then return {d.encoder, cjson.decode(d.shadow).encoder} end
  return {d.encoder}
end

-- What any event says of its decision, as {name, value, ...}.
local function event_of(key, d, arm, list_cost_usd, executed, late)
  local event = {'decision_id', string.match(key, ':decision:(.*)$'), 'arm', arm,
    'list_cost_usd', list_cost_usd, 'x', d.x, 'version', d.version, 'encoder', d.encoder,
    'made_at_ms', d.made_at_ms, 'propensity', d.propensity, 'at_ms', ARGV[1],
    'late', tostring(late), 'executed', executed, 'decided_arm', d.arm,
    'catalog', d.catalog, 'eligible', d.eligible}
  local earlier = ''
  for _, name in ipairs(names) do
    if d[name] then earlier = earlier .. name .. ' ' end
  end
  event[#event + 1], event[#event + 2] = 'earlier', earlier
  if d.shadow then event[#event + 1], event[#event + 2] = 'shadow', d.shadow end
  if d.challenger_x then event[#event + 1], event[#event + 2] = 'challenger_x', d.challenger_x end
  if d.asked then event[#event + 1], event[#event + 2] = 'asked', d.asked end
  if d.plan then event[#event + 1], event[#event + 2] = 'plan', d.plan end
  if d.attempts then event[#event + 1], event[#event + 2] = 'earlier_attempts', d.attempts end
  if reporter ~= '' then event[#event + 1], event[#event + 2] = 'reported_by', reporter end
  return event
end

-- How many events a model with an encoder has been given, with those of this call.
local learned = {}
local function given_to(encoder)
  return learned[encoder] or tonumber(redis.call('HGET', KEYS[2], encoder) or 0)
end

-- Count an event for those who learn it, once for each of its calls: how many each of them has then
-- been given.
local function count(d, calls)
  local counts = {}
  for i, encoder in ipairs(encoders(d)) do
    learned[encoder] = given_to(encoder) + (calls or 1)
    counts[i] = string.format('%.0f', learned[encoder])
  end
  return table.concat(counts, ',')
end

local function keep_counts()
  for encoder, count in pairs(learned) do
    redis.call('HSET', KEYS[2], encoder, string.format('%.0f', count))
  end
end

-- For each encoder, how many events its model was given after the one that taught a component, as
-- JSON: {encoder: {component: count}}. An error before the component means that none taught it.
local function since(d, corrected)
  local counts = {}
  for i, encoder in ipairs(encoders(d)) do
    local of_components = {}
    for _, name in ipairs(corrected) do
      local taught = {}
      for count in string.gmatch(string.match(d.taught or '', name .. ':(%S+)') or '', '%d+') do
        taught[#taught + 1] = count
      end
      if taught[i] then of_components[name] = given_to(encoder) - tonumber(taught[i]) end
    end
    counts[encoder] = of_components
  end
  return cjson.encode(counts)
end

-- Append what puts `values`, {name, new, 'old_' .. name, old, ...}, in the place of those that were
-- learned of the components `corrected`; `more` says why.
local function append_correction(key, d, corrected, values, more)
  local event = event_of(key, d, d.executed_arm, d.executed_list_cost_usd, '1', is_late(d))
  for _, part in ipairs({values, {'correction', '1', 'taught', since(d, corrected)}, more}) do
    for _, word in ipairs(part) do event[#event + 1] = word end
  end
  redis.call('XADD', KEYS[1], '*', unpack(event))
end
