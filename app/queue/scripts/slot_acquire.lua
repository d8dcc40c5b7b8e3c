-- Take one of a key's slots, or renew the one that is held.
-- Bound: the slots held.
-- args: key_id, slot, most (slots at once), ttl_ms (until it comes free by itself)
-- Returns 1, or 0 when all are taken.
local slots, now = SLOTS .. args.key_id, now_ms()
redis.call('ZREMRANGEBYSCORE', slots, '-inf', now)
if not redis.call('ZSCORE', slots, args.slot) and redis.call('ZCARD', slots) >= args.most then
  return 0
end
redis.call('ZADD', slots, now + args.ttl_ms, args.slot)
redis.call('PEXPIRE', slots, args.ttl_ms)
return 1
