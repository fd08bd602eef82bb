-- What a caller's key has reported on one day; begins with event.lua. KEYS[#KEYS - 2] is a hash:
-- `KEY rewards` counts its reports, `KEY n ARM`, `KEY sum ARM` and `KEY squares ARM` the qualities
-- among them and their sums. From ARGV[at + 14] on: the key's id ('' is none), how many reports it has
-- a day ('' is no end).
local REPORTED, KEPT_S = KEYS[#KEYS - 2], 7 * 86400
local rewards, sums = {}, {} -- by key, how many there are; what this call adds to fields

local function used_up(at)
  if reporter == '' or ARGV[at + 15] == '' then return false end
  rewards[reporter] = rewards[reporter]
    or tonumber(redis.call('HGET', REPORTED, reporter .. ' rewards') or 0)
  return rewards[reporter] >= tonumber(ARGV[at + 15])
end

local function add(what, by)
  local field = reporter .. ' ' .. what
  sums[field] = (sums[field] or 0) + by
end

-- Keep a report of `quality`, if any, of an arm, and with the decision (in `field`) whose it was.
local function account(key, field, arm, quality)
  if reporter == '' then return end
  redis.call('HSET', key, field, reporter)
  if rewards[reporter] then rewards[reporter] = rewards[reporter] + 1 end
  add('rewards', 1)
  if quality then
    add('n ' .. arm, 1)
    add('sum ' .. arm, quality)
    add('squares ' .. arm, quality * quality)
  end
end

local function keep_account()
  if not next(sums) then return end
  for field, by in pairs(sums) do
    redis.call('HINCRBYFLOAT', REPORTED, field, string.format('%.17g', by))
  end
  redis.call('EXPIRE', REPORTED, KEPT_S)
end

-- The quality that a report teaches, if any.
local function quality_of(given, at)
  return given.quality or (given.error and ARGV[at + 11] ~= '0' and '0.0')
end
