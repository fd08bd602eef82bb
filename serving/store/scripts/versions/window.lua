-- Keep on which windows of the log a version was ever judged, for they share one alpha: KEYS[1] the
-- version's record. ARGV: the window, '' for none.
local windows = cjson.decode(redis.call('HGET', KEYS[1], 'windows') or '[]')
local known = ARGV[1] == ''
for _, window in ipairs(windows) do known = known or window == ARGV[1] end
if not known then
  windows[#windows + 1] = ARGV[1]
  redis.call('HSET', KEYS[1], 'windows', cjson.encode(windows))
end
return 1
