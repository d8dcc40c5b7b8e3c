-- Add a worker to the registry, or extend its entry.
-- args: worker, announcement (JSON), ttl_ms
redis.call('ZADD', WORKERS, now_ms() + args.ttl_ms, args.worker)
redis.call('HSET', WARM, args.worker, args.announcement)
return 1
