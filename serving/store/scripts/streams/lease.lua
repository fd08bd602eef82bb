-- Take a lease, the learner's or the archiver's: KEYS[1] the lease, KEYS[2] the fence.
-- ARGV[1] time to live in ms. Replies the new fencing token, or 0 while another one holds the lease.
if redis.call('EXISTS', KEYS[1]) == 1 then
  -- It ends at a time of the clock: where that has gone back, a dead holder's would outlive it long.
  if redis.call('PTTL', KEYS[1]) > tonumber(ARGV[1]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[1])
  end
  return 0
end
local token = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], token, 'PX', ARGV[1])
return token
