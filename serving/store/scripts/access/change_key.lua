#!lua flags=allow-oom
-- Put a key in the place of what it was, where nobody else has meanwhile; a full memory keeps nobody
-- from revoking one. KEYS[1] id -> key,
-- KEYS[2] the audit stream, KEYS[3] the channel. ARGV: id, what is replaced ('' is nothing), what
-- replaces it, then the audit entry as {name, value, ...}. Replies 1 if it did, 0 if somebody else
-- was faster, -1 if a key that is new would have the name of one that isn't revoked.
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
if ARGV[2] == '' then
  local name = cjson.decode(ARGV[3]).name
  for _, raw in ipairs(redis.call('HVALS', KEYS[1])) do
    local read, key = pcall(cjson.decode, raw)
    if read and type(key) == 'table' and key.name == name and key.revoked_at_ms == cjson.null then
      return -1
    end
  end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 4))
redis.call('PUBLISH', KEYS[3], '')
return 1
