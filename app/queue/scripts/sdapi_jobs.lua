-- The jobs that a tenant has asked for by /sdapi/v1, after one was added or dropped if it is given.
-- ARGV: tenant, job id or "", milliseconds it is listed; 0 drops it
local listed, now = SDAPI_JOBS .. ARGV[1], now_ms()
redis.call('ZREMRANGEBYSCORE', listed, '-inf', now)
if ARGV[2] ~= '' and ARGV[3] == '0' then
  redis.call('ZREM', listed, ARGV[2])
elseif ARGV[2] ~= '' then
  redis.call('ZADD', listed, now + ARGV[3], ARGV[2])
  redis.call('PEXPIRE', listed, ARGV[3])
end
return redis.call('ZRANGE', listed, 0, -1)
