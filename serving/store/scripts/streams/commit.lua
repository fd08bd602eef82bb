-- Write what a learner has learned, unless a later learner has taken over since.
-- KEYS: lease, fence, checkpoint, snapshot. ARGV: token, lease time to live in ms, checkpoint blob
-- or '', snapshot blob or '', the channel, the version. Replies the snapshot's number, 0 if none
-- was written, or -1 when the token is stale.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return -1 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if ARGV[3] ~= '' then redis.call('SET', KEYS[3], ARGV[3]) end
if ARGV[4] == '' then return 0 end
redis.call('HSET', KEYS[4], 'blob', ARGV[4])
local number = redis.call('HINCRBY', KEYS[4], 'number', 1)
redis.call('PUBLISH', ARGV[5], ARGV[6])
return number
