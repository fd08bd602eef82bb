-- Record what the gate said of a version: KEYS[1] the version's record, KEYS[2] the audit stream.
-- ARGV: version, the record as JSON, now in ms.
-- Replies 1, or 0 when the version isn't registered.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'gate', ARGV[2])
redis.call('XADD', KEYS[2], '*', 'kind', 'gate', 'version', ARGV[1], 'gate', ARGV[2],
  'at_ms', ARGV[3])
return 1
