-- Make a registered version champion: KEYS[1] the prefix of version records, KEYS[2] the policy's
-- state, KEYS[3] the audit stream. ARGV: version, who, why, now in ms, channel, the most that the
-- newest judged row's age may be in ms, '1' to pass over the gate, the share that the champion
-- before keeps.
-- The gate is looked at in the same step as the champion is switched: its verdict must be of this
-- very version, against the champion that serves now. The champion before goes on as the
-- challenger, with that share; a caller's router shares with nobody.
-- Replies {'promoted', champion before, share}, or what is in the way: {'unknown'}, {'champion'},
-- {'no gate'}, {'verdict', verdict}, {'other', champion that it was judged against, champion},
-- {'catalog'}, {'back'} or {'old', age in ms}.
local version, now = ARGV[1], tonumber(ARGV[4])
local record = KEYS[1] .. version
if redis.call('EXISTS', record) == 0 then return {'unknown'} end
local before = redis.call('HGET', KEYS[2], 'champion') or ''
if before == version then return {'champion'} end

local kind, judged = 'override', ''
if ARGV[7] ~= '1' then
  kind, judged = 'promoted', redis.call('HGET', record, 'gate')
  if not judged then return {'no gate'} end
  local gate = cjson.decode(judged)
  if gate.verdict ~= 'pass' then return {'verdict', gate.verdict} end
  if gate.champion ~= before then return {'other', gate.champion, before} end
  if gate.catalog ~= '' and gate.catalog ~= redis.call('HGET', KEYS[2], 'catalog') then
    return {'catalog'}
  end
  local back = tonumber(redis.call('HGET', record, 'rolled_back_ms') or '-1')
  if gate.at_ms <= back or gate.newest_ms <= back then return {'back'} end
  local age = now - gate.newest_ms
  if age > tonumber(ARGV[6]) then return {'old', string.format('%.0f', age)} end
end

local function is_caller(v)
  local config = redis.call('HGET', KEYS[1] .. v, 'config')
  return config and cjson.decode(config).model == 'caller'
end
local share = (is_caller(version) or is_caller(before)) and '0' or ARGV[8]
redis.call('HSET', KEYS[2], 'champion', version, 'previous', before, 'challenger', before,
  'share', share, 'share_by', 'promotion')
redis.call('HDEL', KEYS[2], 'alarm')
redis.call('XADD', KEYS[3], '*', 'kind', kind, 'version', version, 'before', before,
  'who', ARGV[2], 'why', ARGV[3], 'share', share, 'gate', judged, 'at_ms', ARGV[4])
redis.call('PUBLISH', ARGV[5], version)
return {'promoted', before, share}
