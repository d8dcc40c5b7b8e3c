-- Queue again the jobs whose worker has gone silent; give up those lost too often.
-- ARGV: most attempts, error, most jobs a call, most dead letters
-- Returns a list of {id, worker, 'queued' | 'failed' | 'expired'}.
local most_attempts = tonumber(ARGV[1])
local reaped = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', now_ms(), 'LIMIT', 0, ARGV[3])) do
  local state = redis.call('HMGET', JOB .. id, 'worker', 'attempts')
  local model = redis.call('HGET', JOB .. id, 'model')
  local outcome = 'queued'
  count(METRICS.LEASES_LOST, model)
  if expire_late(id) then
    outcome = 'expired'
  elseif tonumber(state[2]) >= most_attempts then
    withdraw(id, 'failed', 'error', ARGV[2])
    keep(id, true)
    redis.call('ZADD', DEAD, now_ms(), id)
    count(METRICS.DEAD_LETTERS, model)
    outcome = 'failed'
  else
    redis.call('PUBLISH', REVOKED, id)
    requeue(id)
  end
  reaped[#reaped + 1] = { id, state[1], outcome }
end
for _ = ARGV[4] + 1, redis.call('ZCARD', DEAD) do
  keep(redis.call('ZPOPMIN', DEAD)[1], false)
end
return reaped
