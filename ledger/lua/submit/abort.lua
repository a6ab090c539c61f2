-- abort(KEYS meta, all...; ARGV silent_ms) -> 1: gone | 0: sealed, or its producer is alive
-- Only what was never sealed can be taken back, with all its keys. silent_ms 0 is the producer itself giving up.
local meta = fields(META, 'status', 'touched_at')
if meta.status and meta.status ~= 'validating' then
  return 0
end
if meta.status and now_ms() - tonumber(meta.touched_at) < tonumber(silent_ms) then
  return 0
end
for i = ALL_AT, #KEYS do
  redis.call('UNLINK', KEYS[i])
end
return 1
