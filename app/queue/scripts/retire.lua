-- Remove a worker from the registry.
-- args: worker
redis.call('ZREM', WORKERS, args.worker)
redis.call('HDEL', WARM, args.worker)
redis.call('HDEL', FINISHED, args.worker)
return 1
