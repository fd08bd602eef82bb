-- Which draw a session's turn belongs to. KEYS[1] the session. ARGV[1] the turn's decision id,
-- ARGV[2] how long an idle session is kept, in ms, ARGV[3] the draw that this turn may replace, or
-- ''. Replies {the draw's decision id, the turn's number}; the same to a turn that asks again.
local draw = redis.call('HGET', KEYS[1], 'draw')
if not draw or draw == ARGV[3] then
  draw = ARGV[1]
  redis.call('HSET', KEYS[1], 'draw', draw)
end
local turn = redis.call('HGET', KEYS[1], 'turn ' .. ARGV[1])
if not turn then
  turn = redis.call('HINCRBY', KEYS[1], 'turns', 1)
  redis.call('HSET', KEYS[1], 'turn ' .. ARGV[1], turn)
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {draw, tonumber(turn)}
