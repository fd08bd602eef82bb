-- Give decisions whose reward window has closed without a quality the one that silence means;
-- begins with event.lua, but that KEYS[3] is how far the decisions stream was swept, and the
-- decisions follow. ARGV[3] the quality, ARGV[4] the id that is swept then. A decision counts as
-- executed unless it was withdrawn; one with an error has a quality. Replies how many got one.
local function assume(key)
  local d = decision(key)
  if not d.arm or d.executed == '0' or d.quality or d.error then return 0 end
  local arm, list_cost_usd = d.executed_arm or d.arm, d.executed_list_cost_usd or d.list_cost_usd
  -- It is what holds when the window closes, so it is not late.
  local event = event_of(key, d, arm, list_cost_usd, '1', 0)
  for _, word in ipairs({'quality', ARGV[3], 'quality_assumed', '1'}) do
    event[#event + 1] = word
  end
  redis.call('HSET', key, 'executed', '1', 'executed_arm', arm,
    'executed_list_cost_usd', list_cost_usd, 'quality', ARGV[3], 'quality_assumed', '1',
    'taught', (d.taught or '') .. 'quality:' .. count(d) .. ' ')
  redis.call('XADD', KEYS[1], '*', unpack(event))
  return 1
end

local assumed = 0
for i = 4, #KEYS do assumed = assumed + assume(KEYS[i]) end
redis.call('SET', KEYS[3], ARGV[4])
keep_counts()
return assumed
