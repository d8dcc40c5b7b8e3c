-- List a tenant's jobs of /sdapi/v1, after one was added or dropped.
-- args: tenant, add (id, optional), ttl_ms (how long it is listed), drop (id, optional)
-- Returns their ids, the oldest first.
local listed, now = SDAPI_JOBS .. args.tenant, now_ms()
redis.call('ZREMRANGEBYSCORE', listed, '-inf', now)
if args.drop then
  redis.call('ZREM', listed, args.drop)
end
if args.add then
  redis.call('ZADD', listed, now + args.ttl_ms, args.add)
  redis.call('PEXPIRE', listed, args.ttl_ms)
end
return redis.call('ZRANGE', listed, 0, -1)
