-- Queue again the jobs whose worker has gone silent; give up those lost too often.
-- ARGV: most attempts, error, retention in ms, most jobs a call, most ids in the dead-letter list
-- Returns a list of {id, worker, 'queued' | 'failed'}.
local most_attempts = tonumber(ARGV[1])
local reaped = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', now_ms(), 'LIMIT', 0, ARGV[4])) do
  local state = redis.call('HMGET', JOB .. id, 'worker', 'attempts')
  if tonumber(state[2]) >= most_attempts then
    close(id, 'failed', 'error', ARGV[2], ARGV[3])
    redis.call('LPUSH', DEAD, id)
    redis.call('LTRIM', DEAD, 0, ARGV[5] - 1)
    reaped[#reaped + 1] = { id, state[1], 'failed' }
  else
    requeue(id)
    reaped[#reaped + 1] = { id, state[1], 'queued' }
  end
end
return reaped
