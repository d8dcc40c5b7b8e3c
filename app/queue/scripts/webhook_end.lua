-- Strike a webhook off the schedule, or make it due again.
-- ARGV: tenant, entry, ms from now or ''
if ARGV[3] ~= '' then
  schedule(ARGV[1], ARGV[2], now_ms() + ARGV[3], 'XX')
  redis.call('PUBLISH', NOTICED, 'due')
else
  schedule(ARGV[1], ARGV[2])
end
return 1
