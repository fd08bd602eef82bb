-- Overrule outcomes; begins with event.lua and used.lua. After the decisions' keys come those of
-- what callers' keys have reported, of what is used of limits and of what is under way. From ARGV[3] on,
-- six values per correction: quality, latency_ms, cost_usd ('' is absent), by, reason, the id of the
-- caller's key. A request that can't be carried out whole
-- changes nothing; a value that holds already is no change.
-- Replies, per correction, {status, corrected or (status `unreported`) never reported, unchanged}.
-- A quality that was assumed is one that was never reported.

local function correct(key, at)
  reporter = ARGV[at + 6]
  local d = decision(key)
  if not d.arm then return {'unknown', {}, {}} end
  if d.executed == '0' then return {'withdrawn', {}, {}} end
  local quality = ARGV[at + 1]
  if d.error and quality ~= '' and tonumber(quality) > 0 then return {'failed', {}, {}} end

  local corrected, unchanged, unreported, update, values = {}, {}, {}, {}, {}
  for j = 1, 3 do
    local name, value = names[j], ARGV[at + j]
    if value ~= '' then
      if not d[name] or (name == 'quality' and d.quality_assumed) then
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
  redis.call('HSET', key, 'corrected_by', by, 'correction_reason', reason, unpack(update))
  append_correction(key, d, corrected, values, {'by', by, 'reason', reason})
  if d.taken and d.cost_usd then
    local cost_usd = redis.call('HGET', key, 'cost_usd')
    local more = tonumber(cost_usd) - tonumber(d.cost_usd)
    move(KEYS[#KEYS - 1], cjson.decode(d.taken).usd, more)
    redis.call('HINCRBYFLOAT', key, 'took_usd', more)
  end
  return {'ok', corrected, unchanged}
end

local replies = {}
for i = 3, #KEYS - 3 do
  replies[i - 2] = correct(KEYS[i], (i - 3) * 6 + 2)
end
return replies
