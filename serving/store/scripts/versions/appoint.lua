-- Make a registered version the challenger, as an operator asks: KEYS[1] the prefix of version
-- records, KEYS[2] the policy's state, KEYS[3] the audit stream. ARGV: version, share of the draw,
-- who, now in ms, channel. It stays so until the configuration file says something new.
-- Replies {'challenger', challenger before or ''}, or what is in the way: {'unknown'}, {'champion'}
-- or {'caller'}, whose draw nobody can share.
local version = ARGV[1]
if redis.call('EXISTS', KEYS[1] .. version) == 0 then return {'unknown'} end
local s = redis.call('HMGET', KEYS[2], 'champion', 'challenger', 'share')
local champion, before = s[1], s[2] or ''
if champion == version then return {'champion'} end
if tonumber(ARGV[2]) > 0 then
  for _, v in ipairs({version, champion}) do
    local config = cjson.decode(redis.call('HGET', KEYS[1] .. v, 'config'))
    if config.model == 'caller' then return {'caller'} end
  end
end
redis.call('HSET', KEYS[2], 'challenger', version, 'share', ARGV[2], 'share_by', 'operator')
redis.call('XADD', KEYS[3], '*', 'kind', 'challenger', 'version', version, 'share', ARGV[2],
  'before', before, 'share_before', s[3] or '0', 'who', ARGV[3], 'at_ms', ARGV[4])
redis.call('PUBLISH', ARGV[5], champion)
return {'challenger', before}
