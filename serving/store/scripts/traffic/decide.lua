-- Record decisions: KEYS[1] the decisions stream, then one key per decision.
-- ARGV[1] retention in ms, then fourteen values per decision; the last three are '' without a
-- challenger, where it has no context of its own, and where no rules are an incumbent. Replies, per decision, false when it was
-- recorded, or {request digest, record, x, challenger's x} of the decision that has this id.
local replies = {}
for i = 2, #KEYS do
  local at = (i - 2) * 14 + 1
  local seen = redis.call('HMGET', KEYS[i], 'request', 'record', 'x', 'challenger_x')
  if seen[1] then
    replies[i - 1] = seen
  else
    redis.call('HSET', KEYS[i], 'request', ARGV[at + 1], 'record', ARGV[at + 2], 'x', ARGV[at + 3],
      'arm', ARGV[at + 4], 'list_cost_usd', ARGV[at + 5], 'version', ARGV[at + 6],
      'encoder', ARGV[at + 7], 'made_at_ms', ARGV[at + 8], 'propensity', ARGV[at + 9],
      'catalog', ARGV[at + 10], 'eligible', ARGV[at + 11])
    local entry = {'record', ARGV[at + 2], 'x', ARGV[at + 3]}
    if ARGV[at + 12] ~= '' then redis.call('HSET', KEYS[i], 'shadow', ARGV[at + 12]) end
    if ARGV[at + 13] ~= '' then
      redis.call('HSET', KEYS[i], 'challenger_x', ARGV[at + 13])
      entry[5], entry[6] = 'challenger_x', ARGV[at + 13]
    end
    if ARGV[at + 14] ~= '' then redis.call('HSET', KEYS[i], 'asked', ARGV[at + 14]) end
    redis.call('PEXPIRE', KEYS[i], ARGV[1])
    redis.call('XADD', KEYS[1], '*', unpack(entry))
    replies[i - 1] = false
  end
end
return replies
