-- Replace what is known of endpoints, where nobody else has meanwhile: KEYS[1] endpoint -> what is
-- known of it, KEYS[2] the channel. ARGV: whether to tell of it ('1' or '0'), then three values per
-- endpoint: its name, what is replaced, what replaces it; '' is nothing, which is a sound endpoint.
-- Replies, per endpoint, what is known then.
local known, changed = {}, false
for i = 2, #ARGV, 3 do
  local name, old, new = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local now = redis.call('HGET', KEYS[1], name) or ''
  if now == old and new ~= old then
    if new == '' then redis.call('HDEL', KEYS[1], name) else redis.call('HSET', KEYS[1], name, new) end
    now, changed = new, true
  end
  known[#known + 1] = now
end
if changed and ARGV[1] == '1' then redis.call('PUBLISH', KEYS[2], '') end
return known
