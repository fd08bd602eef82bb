-- A turn joins a session's draw; scripts that record turns begin with this one. From the second turn
-- on a draw's outcome is that of all its turns: what the first one had becomes its own.
local function join(draw)
  if redis.call('HSETNX', draw, 'session', '1') == 0 then return end
  local assumed = redis.call('HGET', draw, 'quality_assumed')
  for _, name in ipairs({'quality', 'latency_ms', 'cost_usd'}) do
    local value = redis.call('HGET', draw, name)
    if value and not (name == 'quality' and assumed) then
      redis.call('HSET', draw, 'own_' .. name, value, 'sum_' .. name, value, 'n_' .. name, 1)
    end
  end
  local failed = redis.call('HGET', draw, 'error')
  if failed then redis.call('HSET', draw, 'own_error', failed) end
end
