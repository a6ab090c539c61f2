-- finish(KEYS meta, events; ARGV events_kept, ours) -> the status now, or '' if there is no such batch
-- uses: ending
-- Moves a batch with nothing left to do to `finalizing`, unless retry_failed is about to have items
-- of it run again; with ours = 1 that is the caller, who has done so.
if ours == '1' or not is_retrying(META) then
  local status = redis.call('HGET', META, 'status')
  if status == 'in_progress' or status == 'paused' then
    redis.call('HDEL', META, 'retrying_until')
  end
end
return finalize_if_done(META, EVENTS, events_kept) or ''
