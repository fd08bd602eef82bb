-- What is used of limits now; begins with used.lua. KEYS[1] the counters, KEYS[2] what is under way.
-- ARGV[1] now in ms. A counter's name begins with when it ends (in s, 0 for never): it goes then.
-- Replies {counter, value, ...}.
expire(KEYS[1], KEYS[2], ARGV[1])
local counts, kept = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #counts, 2 do
  local ends = tonumber(string.match(counts[i], '^%d+'))
  if ends > 0 and ends * 1000 <= tonumber(ARGV[1]) then
    redis.call('HDEL', KEYS[1], counts[i])
  else
    kept[#kept + 1], kept[#kept + 2] = counts[i], counts[i + 1]
  end
end
return kept
