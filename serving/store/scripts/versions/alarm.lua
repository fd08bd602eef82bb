-- Say that a champion is shown to be worse than the version it replaced: KEYS[1] the policy's state,
-- KEYS[2] the audit stream. ARGV: champion, version that it replaced, the alarm as JSON, now in ms,
-- channel. It stays until the roles change.
-- Replies 1, or 0 where the roles have changed meanwhile.
local s = redis.call('HMGET', KEYS[1], 'champion', 'previous')
if s[1] ~= ARGV[1] or s[2] ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'alarm', ARGV[3])
redis.call('XADD', KEYS[2], '*', 'kind', 'alarm', 'version', ARGV[1], 'previous', ARGV[2],
  'alarm', ARGV[3], 'at_ms', ARGV[4])
redis.call('PUBLISH', ARGV[5], ARGV[1])
return 1
