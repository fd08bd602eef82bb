-- Give a configuration its version number: KEYS[1] fingerprint -> version, KEYS[2] the policy's
-- state, KEYS[3] the audit stream, KEYS[4] the prefix of version records. ARGV: fingerprint,
-- configuration, encoder, now in ms. The first version of a policy becomes its champion, recorded
-- as `initial`; a later one is registered and serves nothing. Replies the version.
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then return known end
local version = tostring(redis.call('HLEN', KEYS[1]) + 1)
redis.call('HSET', KEYS[1], ARGV[1], version)
redis.call('HSET', KEYS[4] .. version, 'config', ARGV[2], 'encoder', ARGV[3],
  'fingerprint', ARGV[1], 'made_at_ms', ARGV[4])
local kind = 'registered'
if redis.call('HSETNX', KEYS[2], 'champion', version) == 1 then
  kind = 'initial'
  -- Tells this service's log from another's: no two begin in the same microsecond, and alike.
  redis.call('HSET', KEYS[2], 'origin', redis.sha1hex(ARGV[1] .. table.concat(redis.call('TIME'), '.')))
end
redis.call('XADD', KEYS[3], '*', 'kind', kind, 'version', version, 'at_ms', ARGV[4])
return version
