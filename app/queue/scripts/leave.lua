-- Give a slot back.
-- ARGV: key id, slot
redis.call('ZREM', SLOTS .. ARGV[1], ARGV[2])
