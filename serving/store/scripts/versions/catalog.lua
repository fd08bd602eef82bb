-- Put a catalog revision in force: KEYS[1] the revision's record, KEYS[2] the policy's state,
-- KEYS[3] the audit stream. ARGV: revision, catalog as JSON, now in ms. Replies 1 if it changed.
redis.call('SET', KEYS[1], ARGV[2])
local before = redis.call('HGET', KEYS[2], 'catalog') or ''
if before == ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], 'catalog', ARGV[1])
redis.call('XADD', KEYS[3], '*', 'kind', 'catalog', 'revision', ARGV[1], 'before', before,
  'at_ms', ARGV[3])
return 1
