-- Outcomes of a session's turns; begins with event.lua, account.lua, used.lua and settle.lua. A turn's own values
-- are its fields own_*. The draw's outcome is made of them: the mean quality and latency, the sum of
-- costs, and where any turn failed the error, with quality 0. The first value of a component is
-- appended as any outcome is, each further one as a correction of the one before.

-- What of a report is new, the same, or contradicts what `stands`; `known` is what was reported.
local function weigh(at, stands, known)
  local accepted, unchanged, conflicts, given = {}, {}, {}, {}
  for j, name in ipairs(names) do
    local value = ARGV[at + j]
    if value ~= '' then
      if not stands[name] then
        given[name] = value
        accepted[#accepted + 1] = name
      elseif (known[name] or stands[name]) == value then
        unchanged[#unchanged + 1] = name
      else
        conflicts[#conflicts + 1] = name
      end
    end
  end
  return accepted, unchanged, conflicts, given
end

-- Append the first values of a draw's components.
local function append_first(key, d, given, at)
  local event = event_of(key, d, d.arm, d.list_cost_usd, '1', is_late(d))
  local at_count, taught = count(d), d.taught or ''
  for _, name in ipairs(names) do
    if given[name] then
      redis.call('HSET', key, name, given[name])
      event[#event + 1], event[#event + 2] = name, given[name]
      local teaches = not d.error and not (given.error and ARGV[at + 11] == '0')
      if name ~= 'error' and teaches then taught = taught .. name .. ':' .. at_count .. ' ' end
    end
  end
  redis.call('HSET', key, 'executed', '1', 'executed_arm', d.arm, 'executed_list_cost_usd',
    d.list_cost_usd, 'taught', taught)
  redis.call('XADD', KEYS[1], '*', unpack(event))
end

-- Bring a draw's outcome to what its turns make of it.
local function make_of_turns(key, failed, at)
  local d, first, corrected, values = decision(key), {}, {}, {}
  for j = 1, 3 do
    local name = names[j]
    local sum, n = unpack(redis.call('HMGET', key, 'sum_' .. name, 'n_' .. name))
    local now = sum and string.format('%.17g', tonumber(sum) / (name == 'cost_usd' and 1 or n))
    if name == 'quality' and (failed or d.error) then now = '0' end
    -- What somebody has corrected stands.
    if redis.call('HEXISTS', key, 'reported_' .. name) == 1 then now = nil end
    if now and d[name] and tonumber(d[name]) ~= tonumber(now) then
      corrected[#corrected + 1] = name
      for _, word in ipairs({name, now, 'old_' .. name, d[name]}) do values[#values + 1] = word end
      redis.call('HSET', key, name, now)
    elseif now and not d[name] and not (name == 'quality' and failed) then
      first[name] = now
    end
  end
  if failed and not d.error then first.error = failed end
  if #corrected > 0 then
    local why = {'by', 'session', 'reason', 'another turn'}
    if d.quality_assumed then why[5], why[6] = 'quality_assumed', '0' end
    redis.call('HDEL', key, 'quality_assumed')
    append_correction(key, d, corrected, values, why)
  end
  if next(first) then append_first(key, decision(key), first, at) end
end

local function accept_turn(key, d, draw_key, at)
  local own, fields = {}, {'own_quality', 'own_latency_ms', 'own_cost_usd', 'own_error',
    'own_executed'}
  for i, value in ipairs(redis.call('HMGET', key, unpack(fields))) do own[i] = value end
  local stands = {quality = own[1], latency_ms = own[2], cost_usd = own[3], error = own[4]}
  local accepted, unchanged, conflicts, given = weigh(at, stands, {})
  if given.error and tonumber(stands.quality or 0) > 0 then conflicts[#conflicts + 1] = 'error' end
  if given.quality and own[4] and tonumber(given.quality) > 0 then
    conflicts[#conflicts + 1] = 'quality'
  end
  -- Read before anything is written: no key of the call names it, so on a cluster it may be gone to
  -- another node already, which ends the script here.
  local draw = decision(draw_key)
  local withdrawn = ARGV[at + 7] == '0'
  local heard = own[1] or own[2] or own[3] or own[4]
  if withdrawn and heard or own[5] and not withdrawn then conflicts[#conflicts + 1] = 'executed' end
  local asides = {ttft_ms = ARGV[at + 8], retry_after_s = ARGV[at + 9]}
  local aside = false
  for name, value in pairs(asides) do
    local kept = value ~= '' and redis.call('HGET', key, name)
    if value ~= '' then
      aside = aside or not kept
      local list = not kept and accepted or kept == value and unchanged or conflicts
      list[#list + 1] = name
    end
  end
  if #conflicts > 0 then return {'conflict', conflicts, {}, {}, 0} end
  if next(given) or aside or withdrawn and not own[5] then
    if used_up(at) then return {'used_up', {}, {}, {}, 0} end
    account(key, 'own_reported_by', d.arm, quality_of(given, at))
  end

  for name, value in pairs(asides) do
    if value ~= '' then redis.call('HSET', key, name, value) end
  end
  local missing = {}
  for j = 1, 3 do
    local name = names[j]
    local known = given[name] or stands[name] or j == 1 and (given.error or own[4])
    if not known and not withdrawn then missing[#missing + 1] = name end
  end
  if withdrawn then
    local list = own[5] and unchanged or accepted
    list[#list + 1] = 'executed'
    redis.call('HSET', key, 'own_executed', '0')
    if not draw.executed then
      redis.call('HSET', draw_key, 'executed', '0', 'executed_arm', draw.arm,
        'executed_list_cost_usd', draw.list_cost_usd)
    end
  end
  for name, value in pairs(given) do
    redis.call('HSET', key, 'own_' .. name, value)
    if name ~= 'error' then
      redis.call('HINCRBYFLOAT', draw_key, 'sum_' .. name, value)
      redis.call('HINCRBY', draw_key, 'n_' .. name, 1)
    end
  end
  if next(given) then make_of_turns(draw_key, given.error, at) end
  local used = {}
  if d.taken and (next(given) or withdrawn and not own[5]) then
    local free = withdrawn or (given.error and not own[3])
    used = settle(key, d, given.cost_usd or (free and '0') or d.took_usd,
      ARGV[at + 12] ~= '' and ARGV[at + 12] or (free and '0') or d.took_tokens, withdrawn)
  end
  return {'ok', accepted, unchanged, missing, is_late(d),
    {d.arm, d.place or '', d.made_at_ms, heard and 0 or 1, used}}
end
