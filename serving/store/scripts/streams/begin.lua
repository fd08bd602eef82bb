-- Write what a fitted version starts from, unless it has already begun to learn.
-- KEYS: checkpoint, snapshot. ARGV: the number of words of the checkpoint, fields with their
-- values, and the snapshot's likewise.
local at = 1
for key = 1, 2 do
  local count = tonumber(ARGV[at])
  if redis.call('HEXISTS', KEYS[key], 'head') == 0 then
    for i = at + 1, at + count, 2 do
      redis.call('HSET', KEYS[key], ARGV[i], ARGV[i + 1])
    end
    if key == 2 and count > 0 then redis.call('HSET', KEYS[key], 'number', 1) end
  end
  at = at + 1 + count
end
return 1
