-- Queue jobs again whose lease has expired; give up those that were lost too often.
-- args: max_attempts, error (JSON), most (jobs per call), most_dead, spared (ids that are left alone)
-- Returns a list of {id, worker, 'queued' | 'failed' | 'expired' | 'gone'}.
local function reap(id, model, attempts)
  if not model then
    remove_lost_job(id)
    return 'gone'
  end
  count(METRICS.LEASES_LOST, model)
  if expire_late(id) then
    return 'expired'
  end
  if tonumber(attempts) >= args.max_attempts then
    withdraw(id, 'failed', 'error', args.error)
    keep(id, true)
    redis.call('ZADD', DEAD, now_ms(), id)
    count(METRICS.DEAD_LETTERS, model)
    return 'failed'
  end
  redis.call('PUBLISH', REVOKED, id)
  requeue(id)
  return 'queued'
end

local spared = {}
for _, id in ipairs(args.spared) do
  spared[id] = true
end
local reaped = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', now_ms(), 'LIMIT', 0, args.most)) do
  if not spared[id] then
    local job = redis.call('HMGET', JOB .. id, 'worker', 'model', 'attempts')
    reaped[#reaped + 1] = { id, job[1] or '', reap(id, job[2], job[3]) }
  end
end
for _ = args.most_dead + 1, redis.call('ZCARD', DEAD) do
  keep(redis.call('ZPOPMIN', DEAD)[1], false)
end
return reaped
