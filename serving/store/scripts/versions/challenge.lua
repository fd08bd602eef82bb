-- Settle who learns in shadow: KEYS[1] the policy's state, KEYS[2] the audit stream.
-- ARGV, as the configuration file asks: version of the policy's own table, version of its challenger's
-- table or '', that challenger's share, now in ms, the channel, fingerprint of the policy's own table.
-- What the file says acts when it is said, not again at each start: until it says something new, the
-- roles and the share stay as a promotion, a rollback or an operator has left them. Then the
-- challenger is the first of these two, and of the champion before, that isn't champion. Its share
-- is the file's where the file says one anew; else the one it has stays, unless the file gave it.
-- Replies {champion, challenger or '', share}.
local s = redis.call('HMGET', KEYS[1], 'champion', 'previous', 'challenger', 'share', 'asked',
  'share_by', 'own')
local champion, before, share, by = s[1], s[3] or '', s[4] or '0', s[6] or 'file'
local challenger = before
local asked = ARGV[2] .. ' ' .. ARGV[3]
if asked ~= s[5] or ARGV[6] ~= s[7] then
  challenger = ''
  for _, version in ipairs({ARGV[2], ARGV[1], s[2] or ''}) do
    if version ~= '' and version ~= champion then
      challenger = version
      break
    end
  end
  if asked ~= s[5] and challenger ~= '' and challenger == ARGV[2] then
    share, by = ARGV[3], 'file'
  elseif challenger ~= before or (asked ~= s[5] and by == 'file') then
    share, by = '0', 'file'
  end
end
if challenger ~= before or share ~= (s[4] or '0') then
  redis.call('XADD', KEYS[2], '*', 'kind', 'challenger', 'version', challenger, 'share', share,
    'before', before, 'share_before', s[4] or '0', 'at_ms', ARGV[4])
  redis.call('PUBLISH', ARGV[5], champion)
end
redis.call('HSET', KEYS[1], 'challenger', challenger, 'share', share, 'share_by', by,
  'asked', asked, 'own', ARGV[6])
return {champion, challenger, share}
