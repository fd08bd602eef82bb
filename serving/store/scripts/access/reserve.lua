-- Take some of the requests that a key has in a minute: KEYS[1] how many are given out. ARGV: how many
-- are wanted, how many there are. Replies how many it gets.
local given = tonumber(redis.call('GET', KEYS[1]) or 0)
local more = math.max(math.min(tonumber(ARGV[1]), tonumber(ARGV[2]) - given), 0)
if more > 0 then redis.call('SET', KEYS[1], given + more, 'EX', 120) end
return more
