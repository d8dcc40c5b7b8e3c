-- The workers whose announcement stands, and forget the others.
-- Returns names and models in turn.
local now = now_ms()
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, '-inf', now)) do
  redis.call('ZREM', WORKERS, worker)
  redis.call('HDEL', WARM, worker)
end
return redis.call('HGETALL', WARM)
