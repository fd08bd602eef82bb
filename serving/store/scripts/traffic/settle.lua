-- What a call has used, once its outcome tells; begins with used.lua. The last two keys are those of
-- what is used of limits and of what is under way.
local USED, UNDER_WAY = KEYS[#KEYS - 1], KEYS[#KEYS]

-- Put what a call really used in the place of what it was expected to use. Gives {counter, value,
-- ...} of what it has moved.
local function settle(key, d, cost_usd, tokens, withdrawn)
  local taken = cjson.decode(d.taken)
  over(USED, UNDER_WAY, taken.member)
  if withdrawn then move(USED, taken.requests, -1) end
  for name, used in pairs({tokens = tokens, usd = cost_usd}) do
    move(USED, taken[name], tonumber(used) - tonumber(d['took_' .. name]))
    redis.call('HSET', key, 'took_' .. name, used)
  end
  local counts = {}
  for _, kind in ipairs({'under_way', 'requests', 'tokens', 'usd'}) do
    for _, field in ipairs(taken[kind]) do
      counts[#counts + 1], counts[#counts + 2] = field, redis.call('HGET', USED, field) or '0'
    end
  end
  return counts
end
