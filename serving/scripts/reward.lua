-- Accept outcomes: KEYS[1] the outcomes stream, then one decision key per outcome.
-- ARGV[1] now in ms, ARGV[2] the reward window in ms, then seven values per outcome: quality,
-- latency_ms, cost_usd, error, executed_arm, its list cost, executed ('0', '1' or ''); '' is absent.
-- Each component is accepted once. A request that conflicts anywhere changes nothing.
-- Replies, per outcome, {status, accepted or conflicting, unchanged, missing, late}.
local names = {'quality', 'latency_ms', 'cost_usd', 'error'}

local function accept(key, at)
  local d = redis.call('HMGET', key, 'arm', 'x', 'list_cost_usd', 'version', 'encoder',
    'made_at_ms', 'propensity', 'quality', 'latency_ms', 'cost_usd', 'error',
    'executed_arm', 'executed', 'catalog', 'eligible', 'shadow', 'challenger_x')
  if not d[1] then return {'unknown', {}, {}, {}, 0} end
  local stored, accepted, unchanged, conflicts = {d[8], d[9], d[10], d[11]}, {}, {}, {}
  local given = {}
  for j, name in ipairs(names) do
    local value = ARGV[at + j]
    if value ~= '' then
      if not stored[j] then
        given[j] = value
        accepted[#accepted + 1] = name
      elseif stored[j] == value then
        unchanged[#unchanged + 1] = name
      else
        conflicts[#conflicts + 1] = name
      end
    end
  end
  -- An error means quality 0: one that contradicts an accepted quality is a conflict.
  if given[4] and stored[1] and tonumber(stored[1]) > 0 then conflicts[#conflicts + 1] = 'error' end
  if given[1] and stored[4] and tonumber(given[1]) > 0 then conflicts[#conflicts + 1] = 'quality' end

  local executed_arm, executed = ARGV[at + 5], ARGV[at + 7]
  if executed == '0' then
    if d[13] == '1' then conflicts[#conflicts + 1] = 'executed' end
  elseif d[13] == '0' then
    conflicts[#conflicts + 1] = 'executed'
  end
  if executed_arm ~= '' and d[12] and d[12] ~= executed_arm then
    conflicts[#conflicts + 1] = 'executed_arm'
  end
  if #conflicts > 0 then return {'conflict', conflicts, {}, {}, 0} end

  local late = (tonumber(ARGV[1]) - tonumber(d[6]) > tonumber(ARGV[2])) and 1 or 0
  local missing = {}
  local failed = given[4] or stored[4]
  for j = 1, 3 do
    if not (given[j] or stored[j]) and not (j == 1 and failed) and executed ~= '0' then
      missing[#missing + 1] = names[j]
    end
  end
  local withdrawn = executed == '0' and not d[13]
  if executed == '0' then
    local list = withdrawn and accepted or unchanged
    list[#list + 1] = 'executed'
  end
  if #accepted == 0 then return {'ok', accepted, unchanged, missing, late} end

  local arm, list_cost_usd = d[12] or d[1], redis.call('HGET', key, 'executed_list_cost_usd') or d[3]
  if not d[12] and executed_arm ~= '' then arm, list_cost_usd = executed_arm, ARGV[at + 6] end
  local update = {'executed', withdrawn and '0' or '1', 'executed_arm', arm,
    'executed_list_cost_usd', list_cost_usd}
  local event = {'decision_id', '', 'arm', arm, 'list_cost_usd', list_cost_usd, 'x', d[2],
    'version', d[4], 'encoder', d[5], 'made_at_ms', d[6], 'propensity', d[7],
    'at_ms', ARGV[1], 'late', tostring(late), 'executed', withdrawn and '0' or '1',
    'decided_arm', d[1], 'catalog', d[14], 'eligible', d[15]}
  event[2] = string.match(key, ':decision:(.*)$')
  local earlier = ''
  for j, name in ipairs(names) do
    if given[j] then
      update[#update + 1], update[#update + 2] = name, given[j]
      event[#event + 1], event[#event + 2] = name, given[j]
    end
    if stored[j] then earlier = earlier .. name .. ' ' end
  end
  event[#event + 1], event[#event + 2] = 'earlier', earlier
  if d[16] then event[#event + 1], event[#event + 2] = 'shadow', d[16] end
  if d[17] then event[#event + 1], event[#event + 2] = 'challenger_x', d[17] end
  redis.call('HSET', key, unpack(update))
  redis.call('XADD', KEYS[1], '*', unpack(event))
  return {'ok', accepted, unchanged, missing, late}
end

local replies = {}
for i = 2, #KEYS do
  replies[i - 1] = accept(KEYS[i], (i - 2) * 7 + 2)
end
return replies
