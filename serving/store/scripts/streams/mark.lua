-- Write nothing of note, to KEYS[1]: who then waits for replicas waits for all before it.
return redis.call('SET', KEYS[1], '')
