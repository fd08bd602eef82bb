-- Settle who learns in shadow: KEYS[1] the policy's state, KEYS[2] the audit stream.
-- ARGV, as the configuration file asks: version of the policy's own table, version of its challenger's
-- table or '', that challenger's share, now in ms, the channel.
-- The challenger is the first of these two, and of the champion before, that isn't champion. What
-- the file says of the share acts when it is said, not again at each start: a promotion sets it
-- to 0. Replies {champion, challenger or '', share}.
local s = redis.call('HMGET', KEYS[1], 'champion', 'previous', 'challenger', 'share', 'asked')
local champion, before, share = s[1], s[3] or '', s[4] or '0'
local challenger = ''
for _, version in ipairs({ARGV[2], ARGV[1], s[2] or ''}) do
  if version ~= '' and version ~= champion then
    challenger = version
    break
  end
end
local asked = ARGV[2] .. ' ' .. ARGV[3]
if asked ~= s[5] then
  share = challenger == ARGV[2] and ARGV[3] or '0'
elseif challenger ~= before then
  share = '0'
end
if challenger ~= before or share ~= (s[4] or '0') then
  redis.call('XADD', KEYS[2], '*', 'kind', 'challenger', 'version', challenger, 'share', share,
    'before', before, 'share_before', s[4] or '0', 'at_ms', ARGV[4])
  redis.call('PUBLISH', ARGV[5], champion)
end
redis.call('HSET', KEYS[1], 'challenger', challenger, 'share', share, 'asked', asked)
return {champion, challenger, share}
