-- api_cancel(KEYS record) -> the status, or '' if there is no such batch
-- A batch that is still validated is noted as cancelled: the process that validates it ends it.
local status = redis.call('HGET', KEYS[1], 'status')
if status == 'validating' or status == 'submitted' then
  local t = redis.call('TIME')
  redis.call('HSETNX', KEYS[1], 'cancelling_at', t[1] * 1000 + math.floor(t[2] / 1000))
end
return status or ''
