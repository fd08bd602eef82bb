-- What is used of limits, and what is under way; scripts begin with this one. `used` is a hash of
-- counters, `under_way` holds the calls whose outcome is awaited, each as JSON [id, counter, ...],
-- until when at most.
local function move(used, fields, by)
  if by == 0 then return end
  for _, field in ipairs(fields) do redis.call('HINCRBYFLOAT', used, field, by) end
end

-- A call is no longer under way; once.
local function over(used, under_way, member)
  if redis.call('ZREM', under_way, member) == 0 then return end
  local fields = cjson.decode(member)
  table.remove(fields, 1)
  move(used, fields, -1)
end

local function expire(used, under_way, now)
  local late = redis.call('ZRANGEBYSCORE', under_way, '-inf', now, 'LIMIT', 0, 1000)
  for _, member in ipairs(late) do over(used, under_way, member) end
end
