-- api_conclude(KEYS record, validating, outbox, outbox_due; ARGV batch_id, status, stamp, chain, ttl_s, webhook, webhook_secret, (field, value)...) -> 1: now | 0: it was concluded before, or is gone
-- End a validation: the batch is `submitted`, `failed` or `cancelled`. `stamp` names the field that gets the time.
-- `webhook`: where its end is told, and the variable of the secret, '': where all ends are told.
-- A batch that ends here is not in the ledger: what its end owes to others is noted in the same step, as commit.lua does.
redis.call('ZREM', VALIDATING, batch_id)
if redis.call('HGET', RECORD, 'status') ~= 'validating' then
  return 0
end
local now = now_ms()
redis.call('HSET', RECORD, 'status', status, stamp, now, unpack(ARGV, RECORDS_AT))
if status ~= 'submitted' then
  local said = fields(RECORD, 'created_at', 'metadata')
  local meta = {'chain', chain, 'status', status, 'created_at', said.created_at, 'ended_at', string.format('%.0f', now)}
  if said.metadata and said.metadata ~= 'null' then
    table.insert(meta, 'metadata')
    table.insert(meta, said.metadata)
  end
  redis.call('HSET', OUTBOX, 1, cjson.encode(meta))
  if webhook ~= '' then
    redis.call('HSET', OUTBOX, 'webhook', webhook, 'webhook.secret', webhook_secret)
  end
  redis.call('EXPIRE', OUTBOX, ttl_s)
  redis.call('ZADD', OUTBOX_DUE, now, batch_id .. ' 1')
end
return 1
