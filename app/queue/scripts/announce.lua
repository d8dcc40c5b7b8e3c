-- Enter a worker in the registry, or prolong its stay.
-- ARGV: worker, its models as JSON, time to live in ms
redis.call('ZADD', WORKERS, now_ms() + ARGV[3], ARGV[1])
redis.call('HSET', WARM, ARGV[1], ARGV[2])
return 1
