-- Write what a learner has learned, unless a later learner has taken over since.
-- KEYS: lease, fence, checkpoint, snapshot. ARGV: token, lease time to live in ms, the channel, the
-- version; and of the checkpoint, then of the snapshot: the digest of the head that must be in
-- place, or '', the number of words that follow, and fields with their values. Replies the
-- snapshot's number, 0 if none was written, -1 when the token is stale, or -2 when what is in place
-- isn't what the change is of; nothing is written then.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return -1 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local at, from, count = 5, {}, {}
for key = 3, 4 do
  if ARGV[at] ~= '' then
    local head = redis.call('HGET', KEYS[key], 'head')
    if not head or string.sub(head, 9, 40) ~= ARGV[at] then return -2 end
  end
  count[key] = tonumber(ARGV[at + 1])
  from[key] = at + 2
  at = at + 2 + count[key]
end
for key = 3, 4 do
  for i = from[key], from[key] + count[key] - 1, 2 do
    redis.call('HSET', KEYS[key], ARGV[i], ARGV[i + 1])
  end
end
if count[4] == 0 then return 0 end
local number = redis.call('HINCRBY', KEYS[4], 'number', 1)
redis.call('PUBLISH', ARGV[3], ARGV[4])
return number
