-- Accept outcomes; begins with event.lua, account.lua, used.lua, settle.lua and turn.lua. After the
-- decisions' keys come those of what callers' keys have reported, of what is used of limits and of what
-- is under way. From ARGV[3] on, fifteen values per outcome: quality,
-- latency_ms, cost_usd, error, executed_arm, its list cost, executed ('0', '1' or ''), ttft_ms,
-- retry_after_s, whether late ones count ('0' or '1'), whether the error teaches anything (likewise),
-- tokens, the calls that were made as JSON, the id of the caller's key and how many reports that has a
-- day; '' is absent. ttft_ms and retry_after_s are kept, and
-- teach nothing.
-- Each component is accepted once. A request that conflicts anywhere changes nothing. What was
-- corrected is compared with what was reported, so that a repeated report stays one. A quality that
-- was assumed stands until one is reported, or an error: that replaces it as a correction does.
-- Replies, per outcome, {status, accepted or conflicting, unchanged, missing, late}, and where a call
-- is told to be over {arm, place, when it was decided, whether it was made and nothing known of it before,
-- {counter, value, ...} of what it has moved}.

local asides = {'ttft_ms', 'retry_after_s', 'attempts'}
local aside_at = {8, 9, 13}

-- Put a reported quality in the place of one that was assumed.
local function replace_assumed(key, d, quality)
  append_correction(key, d, {'quality'}, {'quality', quality, 'old_quality', d.quality},
    {'quality_assumed', '0'})
  redis.call('HSET', key, 'quality', quality)
  redis.call('HDEL', key, 'quality_assumed')
end

local function accept(key, at)
  reporter = ARGV[at + 14]
  local d = decision(key)
  if not d.arm then return {'unknown', {}, {}, {}, 0} end
  if d.draw or d.session then
    local draw_key = d.draw and string.gsub(key, ':decision:.*$', ':decision:' .. d.draw) or key
    if redis.call('EXISTS', draw_key) == 0 then return {'unknown', {}, {}, {}, 0} end
    return accept_turn(key, d, draw_key, at)
  end
  local stands = {quality = not d.quality_assumed and d.quality, latency_ms = d.latency_ms,
    cost_usd = d.cost_usd, error = d.error}
  local accepted, unchanged, conflicts, given = weigh(at, stands, d.reported)
  local aside, calls = {}, nil
  for j, name in ipairs(asides) do
    local value = ARGV[at + aside_at[j]]
    if value ~= '' then
      local kept = redis.call('HGET', key, name)
      if not kept then
        aside[#aside + 1], aside[#aside + 2] = name, value
        if name == 'attempts' then calls = #cjson.decode(value).attempts end
        accepted[#accepted + 1] = name
      else
        local list = kept == value and unchanged or conflicts
        list[#list + 1] = name
      end
    end
  end
  -- An error means quality 0: one that contradicts an accepted quality is a conflict.
  local best = math.max(tonumber(stands.quality or 0), tonumber(d.reported.quality or 0))
  if given.error and best > 0 then conflicts[#conflicts + 1] = 'error' end
  if given.quality and d.error and tonumber(given.quality) > 0 then
    conflicts[#conflicts + 1] = 'quality'
  end

  local executed_arm, executed = ARGV[at + 5], ARGV[at + 7]
  if executed == '0' then
    if d.executed == '1' then conflicts[#conflicts + 1] = 'executed' end
  elseif d.executed == '0' then
    conflicts[#conflicts + 1] = 'executed'
  end
  if executed_arm ~= '' and d.executed_arm and d.executed_arm ~= executed_arm then
    conflicts[#conflicts + 1] = 'executed_arm'
  end
  if #conflicts > 0 then return {'conflict', conflicts, {}, {}, 0} end
  local withdrawn = executed == '0' and not d.executed
  if next(given) or #aside > 0 or withdrawn then
    if used_up(at) then return {'used_up', {}, {}, {}, 0} end
    local ran = d.executed_arm or executed_arm ~= '' and executed_arm or d.arm
    account(key, 'reported_by', ran, quality_of(given, at))
  end

  local missing = {}
  local failed = given.error or d.error
  for j = 1, 3 do
    local name = names[j]
    if not (given[name] or stands[name]) and not (j == 1 and failed) and executed ~= '0' then
      missing[#missing + 1] = name
    end
  end
  if executed == '0' then
    local list = withdrawn and accepted or unchanged
    list[#list + 1] = 'executed'
  end
  if #aside > 0 then redis.call('HSET', key, unpack(aside)) end
  local quality = given.quality or (given.error and '0.0')
  if d.quality_assumed and quality then
    replace_assumed(key, d, quality)
    given.quality = nil
  end
  if not (next(given) or withdrawn or calls) then
    if executed_arm ~= '' and not d.executed_arm then
      redis.call('HSET', key, 'executed_arm', executed_arm,
        'executed_list_cost_usd', ARGV[at + 6])
    end
    return {'ok', accepted, unchanged, missing, is_late(d)}
  end

  local arm, list_cost_usd = d.executed_arm or d.arm, d.executed_list_cost_usd or d.list_cost_usd
  if not d.executed_arm and executed_arm ~= '' then
    arm, list_cost_usd = executed_arm, ARGV[at + 6]
  end
  local was_executed = withdrawn and '0' or '1'
  local update = {'executed', was_executed, 'executed_arm', arm,
    'executed_list_cost_usd', list_cost_usd}
  local event = event_of(key, d, arm, list_cost_usd, was_executed, is_late(d))
  local at_count, taught = not withdrawn and count(d, calls), d.taught or ''
  for _, name in ipairs(names) do
    if given[name] then
      update[#update + 1], update[#update + 2] = name, given[name]
      event[#event + 1], event[#event + 2] = name, given[name]
      -- After an error nothing more is learned of a decision, nor with one that teaches nothing.
      local teaches = not d.error and not (given.error and ARGV[at + 11] == '0')
      if name ~= 'error' and teaches then taught = taught .. name .. ':' .. at_count .. ' ' end
    end
  end
  if ARGV[at + 10] == '1' and is_late(d) == 1 and quality then
    event[#event + 1], event[#event + 2] = 'quality_assumed', '0'
  end
  for _, value in ipairs(aside) do event[#event + 1] = value end
  update[#update + 1], update[#update + 2] = 'taught', taught
  redis.call('HSET', key, unpack(update))
  redis.call('XADD', KEYS[1], '*', unpack(event))
  local used = {}
  if d.taken then
    local free = withdrawn or (given.error and not stands.cost_usd)
    used = settle(key, d, given.cost_usd or (free and '0') or d.took_usd,
      ARGV[at + 12] ~= '' and ARGV[at + 12] or (free and '0') or d.took_tokens, withdrawn)
  end
  return {'ok', accepted, unchanged, missing, is_late(d),
    {arm, arm == d.arm and d.place or '', d.made_at_ms, (d.executed or withdrawn) and 0 or 1,
      used}}
end

local replies = {}
for i = 3, #KEYS - 3 do
  replies[i - 2] = accept(KEYS[i], (i - 3) * 15 + 2)
end
keep_counts()
keep_account()
return replies
