-- free_key(KEYS idempotency_key, meta; ARGV batch_id) -> 1: free | 0: it names another batch by now, or that batch exists
if redis.call('GET', IDEMPOTENCY_KEY) == batch_id and redis.call('EXISTS', META) == 0 then
  return redis.call('DEL', IDEMPOTENCY_KEY)
end
return 0
