-- Keep the archiver's lease, and drop what is archived and learned, unless another archiver has
-- taken over. KEYS: lease, fence, decisions, outcomes, what was trimmed, the policy's state.
-- ARGV: token, lease time to live in ms, ids to keep decisions and outcomes from ('' keeps all),
-- and the champion and challenger ('' for none) whose checkpoints were looked at: where these are
-- others now, outcomes stay. Replies how many entries went, or -1 when the token is stale.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return -1 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local gone = 0
local function trim(stream, name, from)
  if from == '' then return end
  redis.call('HSET', KEYS[5], name, from)
  gone = gone + redis.call('XTRIM', stream, 'MINID', from)
end
trim(KEYS[3], 'decisions', ARGV[3])
local roles = redis.call('HMGET', KEYS[6], 'champion', 'challenger')
if (roles[1] or '') == ARGV[5] and (roles[2] or '') == ARGV[6] then
  trim(KEYS[4], 'outcomes', ARGV[4])
end
return gone
