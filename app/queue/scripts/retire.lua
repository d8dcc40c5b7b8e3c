-- Take a worker out of the registry.
-- ARGV: worker
redis.call('ZREM', WORKERS, ARGV[1])
redis.call('HDEL', WARM, ARGV[1])
redis.call('HDEL', FINISHED, ARGV[1])
return 1
