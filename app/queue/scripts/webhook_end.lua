-- Remove a webhook from the schedule, or make it due again.
-- args: tenant, entry, delay_ms (until it is due again; absent: it is done)
if args.delay_ms then
  schedule(args.tenant, args.entry, now_ms() + args.delay_ms, 'XX')
  redis.call('PUBLISH', NOTICED, 'due')
else
  schedule(args.tenant, args.entry)
end
return 1
