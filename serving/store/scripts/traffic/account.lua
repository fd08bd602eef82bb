-- What a caller's key has reported on one day; begins with event.lua. KEYS[#KEYS - 2] is a hash:
-- `KEY rewards` counts its reports, `KEY n ARM`, `KEY sum ARM` and `KEY squares ARM` the qualities
-- among them and their sums. From ARGV[at + 14] on: the key's id ('' is none), how many reports it has
-- a day ('' is no end).
local REPORTED, KEPT_S = KEYS[#KEYS - 2], 7 * 86400

local function used_up(at)
  if reporter == '' or ARGV[at + 15] == '' then return false end
  local n = redis.call('HGET', REPORTED, reporter .. ' rewards')
  return tonumber(n or 0) >= tonumber(ARGV[at + 15])
end

-- Keep a report of `quality`, if any, of an arm, and with the decision (in `field`) whose it was.
local function account(key, field, arm, quality)
  if reporter == '' then return end
  redis.call('HSET', key, field, reporter)
  redis.call('HINCRBY', REPORTED, reporter .. ' rewards', 1)
  if quality then
    redis.call('HINCRBY', REPORTED, reporter .. ' n ' .. arm, 1)
    redis.call('HINCRBYFLOAT', REPORTED, reporter .. ' sum ' .. arm, quality)
    redis.call('HINCRBYFLOAT', REPORTED, reporter .. ' squares ' .. arm, quality * quality)
  end
  redis.call('EXPIRE', REPORTED, KEPT_S)
end

-- The quality that a report teaches, if any.
local function quality_of(given, at)
  return given.quality or (given.error and ARGV[at + 11] ~= '0' and '0.0')
end
