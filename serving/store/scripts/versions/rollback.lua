-- Make the champion before the last promotion champion again, whatever the gate says: KEYS[1] the
-- prefix of version records, KEYS[2] the policy's state, KEYS[3] the audit stream.
-- ARGV: who, why, now in ms, channel, the champion that is meant or '' for any. What was champion
-- learns on as the challenger, without a share of the draw, and needs a new pass of the gate on what
-- is decided from now on: its record is dropped, and the time is kept. There is no way back to it but
-- that, so `previous` is dropped as well.
-- Replies {champion, champion before}, or false when there is none to go back to, or another is
-- champion than is meant.
local state = redis.call('HMGET', KEYS[2], 'champion', 'previous')
local champion, previous = state[1], state[2]
if not previous or previous == '' or previous == champion then return false end
if ARGV[5] ~= '' and ARGV[5] ~= champion then return false end
redis.call('HSET', KEYS[2], 'champion', previous, 'challenger', champion, 'share', '0',
  'share_by', 'rollback')
redis.call('HDEL', KEYS[2], 'previous', 'alarm')
redis.call('HDEL', KEYS[1] .. champion, 'gate')
redis.call('HSET', KEYS[1] .. champion, 'rolled_back_ms', ARGV[3])
redis.call('XADD', KEYS[3], '*', 'kind', 'rollback', 'version', previous, 'before', champion,
  'who', ARGV[1], 'why', ARGV[2], 'at_ms', ARGV[3])
redis.call('PUBLISH', ARGV[4], previous)
return {previous, champion}
