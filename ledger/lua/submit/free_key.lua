-- free_key(KEYS idempotency_key, meta; ARGV batch_id) -> 1: free | 0: it names another batch by now, or that batch exists
if redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('EXISTS', KEYS[2]) == 0 then
  return redis.call('DEL', KEYS[1])
end
return 0
