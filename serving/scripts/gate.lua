-- Record what the gate said of a version: KEYS[1] the version's record, KEYS[2] the audit stream.
-- ARGV: version, the record as JSON, the window of the log that was judged or '', now in ms.
-- The windows that a version was ever judged on stay in `windows`, for they share one alpha.
-- Replies 1, or 0 when the version isn't registered.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'gate', ARGV[2])
local windows = cjson.decode(redis.call('HGET', KEYS[1], 'windows') or '[]')
local known = ARGV[3] == ''
for _, window in ipairs(windows) do known = known or window == ARGV[3] end
if not known then
  windows[#windows + 1] = ARGV[3]
  redis.call('HSET', KEYS[1], 'windows', cjson.encode(windows))
end
redis.call('XADD', KEYS[2], '*', 'kind', 'gate', 'version', ARGV[1], 'gate', ARGV[2],
  'at_ms', ARGV[4])
return 1
