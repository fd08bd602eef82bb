#!lua flags=allow-oom
-- Put a key in the place of what it was, where nobody else has meanwhile; a full memory keeps nobody
-- from revoking one. KEYS[1] id -> key,
-- KEYS[2] the audit stream, KEYS[3] the channel. ARGV: id, what is replaced ('' is nothing), what
-- replaces it, then the audit entry as {name, value, ...}. Replies whether it did.
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 4))
redis.call('PUBLISH', KEYS[3], '')
return 1
