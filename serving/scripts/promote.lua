-- Make a registered version champion: KEYS[1] the version's record, KEYS[2] the policy's state,
-- KEYS[3] the audit stream. ARGV: version, who, why, now in ms, channel. The champion before goes on
-- as the challenger, without a share of the draw.
-- Replies the champion before, or false when the version isn't registered.
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local before = redis.call('HGET', KEYS[2], 'champion') or ''
redis.call('HSET', KEYS[2], 'champion', ARGV[1], 'previous', before)
if before ~= ARGV[1] then redis.call('HSET', KEYS[2], 'challenger', before, 'share', '0') end
redis.call('XADD', KEYS[3], '*', 'kind', 'override', 'version', ARGV[1], 'before', before,
  'who', ARGV[2], 'why', ARGV[3], 'at_ms', ARGV[4])
redis.call('PUBLISH', ARGV[5], ARGV[1])
return before
