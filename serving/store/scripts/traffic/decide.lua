-- Record decisions; begins with used.lua and join.lua. KEYS[1] the decisions stream, KEYS[2] what is used of
-- limits, KEYS[3] what is under way, then one key per decision.
-- ARGV[1] retention in ms, then eighteen values per decision; the last seven are '' without a
-- challenger, where it has no context of its own, where no rules are an incumbent, where an arm has
-- no endpoint, where nothing is taken of limits, without a plan, and without a session. A
-- later turn of one names its draw and is no decision of its own: the log hears nothing of it.
-- Replies, per decision, false when it was recorded, or what is under way at the places it asks of;
-- {'turn', its number, the same counts} for a turn of a session; {'session', its draw} where that is
-- another than the turn was made for, and
-- {request digest, record, x, challenger's x, turn} of the decision that has this id; or the number, from
-- 0, of the bound that it would have gone beyond: then nothing was done.

-- Let the price that paces a budget follow a decision, and the mean of what its cheapest arm costs.
local function pace(p, made_at_ms)
  local price = tonumber(redis.call('HGET', KEYS[2], p.price) or p.first) + p.step
  redis.call('HSET', KEYS[2], p.price, math.max(price, p.lowest))
  local known = tonumber(redis.call('HGET', KEYS[2], p.cheapest) or p.least)
  redis.call('HSET', KEYS[2], p.cheapest, known + p.follows * (p.least - known))
  redis.call('HSETNX', KEYS[2], p.began, made_at_ms)
end

-- Take what a decision takes, unless that is too much.
local function take(h, made_at_ms)
  expire(KEYS[2], KEYS[3], made_at_ms)
  for number, bound in ipairs(h.bounds) do
    local used = 0
    for _, value in ipairs(redis.call('HMGET', KEYS[2], unpack(bound[2]))) do
      used = used + tonumber(value or 0)
    end
    if used > bound[1] then return number - 1 end
  end
  move(KEYS[2], h.under_way, 1)
  move(KEYS[2], h.requests, 1)
  move(KEYS[2], h.tokens, h.n_tokens)
  move(KEYS[2], h.usd, h.n_usd)
  if h.paced then pace(h.paced, made_at_ms) end
  if #h.under_way > 0 then redis.call('ZADD', KEYS[3], h.until_ms, h.member) end
  return nil
end

local function told(h)
  local counts = {}
  for i, field in ipairs(h.told) do
    counts[i] = tonumber(redis.call('HGET', KEYS[2], field) or 0)
  end
  return counts
end

local function session_key(key, s)
  return (string.gsub(key, ':decision:.*$', ':session:' .. s.id))
end

-- What a session's draw is, where that isn't what a turn was made for: nothing is done then.
local function elsewhere(key, s)
  local draw = redis.call('HGET', session_key(key, s), 'draw') or ''
  if s.draw ~= '' then return draw ~= s.draw and draw end
  return draw ~= '' and draw ~= s.replaces and draw
end

-- A turn was recorded: it draws for its session, or joins its draw. Gives its number.
local function enter(key, s)
  local session, id = session_key(key, s), string.match(key, ':decision:(.*)$')
  if s.draw == '' then
    redis.call('HSET', session, 'draw', id)
  else
    redis.call('HSET', key, 'draw', s.draw)
    join((string.gsub(key, ':decision:.*$', ':decision:' .. s.draw)))
  end
  local turn = redis.call('HINCRBY', session, 'turns', 1)
  redis.call('PEXPIRE', session, s.idle_ms)
  redis.call('HSET', key, 'turn', turn)
  return turn
end

local replies = {}
for i = 4, #KEYS do
  local at = (i - 4) * 18 + 1
  local seen = redis.call('HMGET', KEYS[i], 'request', 'record', 'x', 'challenger_x',
    'turn')
  local h = ARGV[at + 16] ~= '' and cjson.decode(ARGV[at + 16])
  local s = ARGV[at + 18] ~= '' and cjson.decode(ARGV[at + 18])
  local other = s and not seen[1] and elsewhere(KEYS[i], s)
  local refused = h and not seen[1] and not other and take(h, ARGV[at + 8])
  if seen[1] then
    replies[i - 3] = seen
  elseif other then
    replies[i - 3] = {'session', other}
  elseif refused then
    replies[i - 3] = refused
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
    if ARGV[at + 15] ~= '' then redis.call('HSET', KEYS[i], 'place', ARGV[at + 15]) end
    if h then
      redis.call('HSET', KEYS[i], 'taken', ARGV[at + 16], 'took_tokens', h.n_tokens, 'took_usd',
        h.n_usd)
    end
    if ARGV[at + 17] ~= '' then redis.call('HSET', KEYS[i], 'plan', ARGV[at + 17]) end
    redis.call('PEXPIRE', KEYS[i], ARGV[1])
    if not s or s.draw == '' then redis.call('XADD', KEYS[1], '*', unpack(entry)) end
    replies[i - 3] = h and told(h) or false
    if s then replies[i - 3] = {'turn', enter(KEYS[i], s), unpack(replies[i - 3] or {})} end
  end
end
return replies
