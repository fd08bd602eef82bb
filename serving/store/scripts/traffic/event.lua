-- What the scripts that append to the outcomes stream share; each of them begins with this one.
-- KEYS[1] the outcomes stream, KEYS[2] how many of its events a model with an encoder has been
-- given, by encoder, then one decision key per item. ARGV[1] now in ms, ARGV[2] the reward window
-- in ms.
local names = {'quality', 'latency_ms', 'cost_usd', 'error'}
local fields = {'arm', 'x', 'list_cost_usd', 'version', 'encoder', 'made_at_ms', 'propensity',
  'quality', 'latency_ms', 'cost_usd', 'error', 'executed_arm', 'executed_list_cost_usd',
  'executed', 'catalog', 'eligible', 'shadow', 'challenger_x', 'taught', 'corrected_by'}

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
local function event_of(key, d, arm, list_cost_usd, executed)
  local event = {'decision_id', string.match(key, ':decision:(.*)$'), 'arm', arm,
    'list_cost_usd', list_cost_usd, 'x', d.x, 'version', d.version, 'encoder', d.encoder,
    'made_at_ms', d.made_at_ms, 'propensity', d.propensity, 'at_ms', ARGV[1],
    'late', tostring(is_late(d)), 'executed', executed, 'decided_arm', d.arm,
    'catalog', d.catalog, 'eligible', d.eligible}
  local earlier = ''
  for _, name in ipairs(names) do
    if d[name] then earlier = earlier .. name .. ' ' end
  end
  event[#event + 1], event[#event + 2] = 'earlier', earlier
  if d.shadow then event[#event + 1], event[#event + 2] = 'shadow', d.shadow end
  if d.challenger_x then event[#event + 1], event[#event + 2] = 'challenger_x', d.challenger_x end
  return event
end
