-- Strike a webhook off the schedule, or make it due again.
-- ARGV: entry, ms from now or ''
if ARGV[2] ~= '' then
  redis.call('ZADD', WEBHOOKS, 'XX', now_ms() + ARGV[2], ARGV[1])
  redis.call('PUBLISH', NOTICED, 'due')
else
  redis.call('ZREM', WEBHOOKS, ARGV[1])
  redis.call('HDEL', WEBHOOK_TRIES, ARGV[1])
end
return 1
