-- Record decisions: KEYS[1] the decisions stream, then one key per decision.
-- ARGV[1] retention in ms, then eleven values per decision. Replies, per decision, false when it was
-- recorded, or {request digest, record, x} of the decision that already has this id.
local replies = {}
for i = 2, #KEYS do
  local at = (i - 2) * 11 + 1
  local seen = redis.call('HMGET', KEYS[i], 'request', 'record', 'x')
  if seen[1] then
    replies[i - 1] = seen
  else
    redis.call('HSET', KEYS[i], 'request', ARGV[at + 1], 'record', ARGV[at + 2], 'x', ARGV[at + 3],
      'arm', ARGV[at + 4], 'list_cost_usd', ARGV[at + 5], 'version', ARGV[at + 6],
      'encoder', ARGV[at + 7], 'made_at_ms', ARGV[at + 8], 'propensity', ARGV[at + 9],
      'catalog', ARGV[at + 10], 'eligible', ARGV[at + 11])
    redis.call('PEXPIRE', KEYS[i], ARGV[1])
    redis.call('XADD', KEYS[1], '*', 'record', ARGV[at + 2], 'x', ARGV[at + 3])
    replies[i - 1] = false
  end
end
return replies
