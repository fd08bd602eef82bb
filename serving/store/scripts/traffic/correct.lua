-- Overrule outcomes; begins with event.lua. From ARGV[3] on, five values per correction: quality,
-- latency_ms, cost_usd ('' is absent), by, reason. A request that can't be carried out whole
-- changes nothing; a value that holds already is no change.
-- Replies, per correction, {status, corrected or (status `unreported`) never reported, unchanged}.

-- For each encoder, how many events its model was given after the one that taught a component, as
-- JSON: {encoder: {component: count}}. An error before the component means that none taught it.
local function since(d, corrected)
  local counts = {}
  for i, encoder in ipairs(encoders(d)) do
    local given, of_components = redis.call('HGET', KEYS[2], encoder), {}
    for _, name in ipairs(corrected) do
      local taught = {}
      for count in string.gmatch(string.match(d.taught or '', name .. ':(%S+)') or '', '%d+') do
        taught[#taught + 1] = count
      end
      if taught[i] then of_components[name] = tonumber(given) - tonumber(taught[i]) end
    end
    counts[encoder] = of_components
  end
  return cjson.encode(counts)
end

local function correct(key, at)
  local d = decision(key)
  if not d.arm then return {'unknown', {}, {}} end
  if d.executed == '0' then return {'withdrawn', {}, {}} end
  local quality = ARGV[at + 1]
  if d.error and quality ~= '' and tonumber(quality) > 0 then return {'failed', {}, {}} end

  local corrected, unchanged, unreported, update, values = {}, {}, {}, {}, {}
  for j = 1, 3 do
    local name, value = names[j], ARGV[at + j]
    if value ~= '' then
      if not d[name] then
        unreported[#unreported + 1] = name
      elseif d[name] == value then
        unchanged[#unchanged + 1] = name
      else
        corrected[#corrected + 1] = name
        update[#update + 1], update[#update + 2] = name, value
        if not d.reported[name] then
          update[#update + 1], update[#update + 2] = 'reported_' .. name, d[name]
        end
        values[#values + 1], values[#values + 2] = name, value
        values[#values + 1], values[#values + 2] = 'old_' .. name, d[name]
      end
    end
  end
  if #unreported > 0 then return {'unreported', unreported, {}} end
  if #corrected == 0 then return {'ok', corrected, unchanged} end

  local by, reason = ARGV[at + 4], ARGV[at + 5]
  local event = event_of(key, d, d.executed_arm, d.executed_list_cost_usd, '1')
  for _, part in ipairs({values, {'correction', '1', 'by', by, 'reason', reason,
      'taught', since(d, corrected)}}) do
    for _, word in ipairs(part) do event[#event + 1] = word end
  end
  redis.call('HSET', key, 'corrected_by', by, 'correction_reason', reason, unpack(update))
  redis.call('XADD', KEYS[1], '*', unpack(event))
  return {'ok', corrected, unchanged}
end

local replies = {}
for i = 3, #KEYS do
  replies[i - 2] = correct(KEYS[i], (i - 3) * 5 + 2)
end
return replies
