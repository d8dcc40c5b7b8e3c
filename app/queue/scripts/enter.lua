-- Take one of a key's slots, or renew the one that is held.
-- Bound: the slots held.
-- ARGV: key id, slot, most slots at once, milliseconds until it comes free by itself
-- Returns 1, or 0 when all are taken.
local slots, now = SLOTS .. ARGV[1], now_ms()
redis.call('ZREMRANGEBYSCORE', slots, '-inf', now)
if not redis.call('ZSCORE', slots, ARGV[2]) and redis.call('ZCARD', slots) >= tonumber(ARGV[3]) then
  return 0
end
redis.call('ZADD', slots, now + ARGV[4], ARGV[2])
redis.call('PEXPIRE', slots, ARGV[4])
return 1
