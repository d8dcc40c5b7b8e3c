-- Enter a worker in the registry, or prolong its stay.
-- ARGV: worker, models as a JSON list, time to live in ms
redis.call('ZADD', WORKERS, now_ms() + ARGV[3], ARGV[1])
redis.call('HSET', WARM, ARGV[1], ARGV[2])
return 1
