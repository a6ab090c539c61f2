-- api_cancel(KEYS record) -> the status, or '' if there is no such batch
-- A batch that is still validated is noted as cancelled: the process that validates it ends it.
local status = redis.call('HGET', RECORD, 'status')
if status == 'validating' or status == 'submitted' then
  redis.call('HSETNX', RECORD, 'cancelling_at', now_ms())
end
return status or ''
