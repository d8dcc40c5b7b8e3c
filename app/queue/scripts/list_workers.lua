-- List the workers whose announcement is valid, and remove the others.
-- Bound: the workers that are or were lately.
-- Returns names and models in turn.
local now = now_ms()
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, '-inf', now)) do
  redis.call('ZREM', WORKERS, worker)
  redis.call('HDEL', WARM, worker)
  redis.call('HDEL', FINISHED, worker)
end
return redis.call('HGETALL', WARM)
