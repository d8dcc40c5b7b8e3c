-- Queue dead letters again with no attempt counted; each has its whole time to the deadline again.
-- Bound: the ids given.
-- args: ids
-- Returns the ids that were dead letters.
local replayed = {}
for _, id in ipairs(args.ids) do
  if redis.call('ZREM', DEAD, id) == 1 and redis.call('EXISTS', JOB .. id) == 1 then
    local key, now = JOB .. id, now_ms()
    local times = redis.call('HMGET', key, 'deadline_ms', 'queued_ms', 'api_key')
    local deadline = now + times[1] - times[2]
    redis.call('HSET', key, 'status', 'queued', 'attempts', 0, 'step', 0, 'queued_ms', now, 'deadline_ms', deadline)
    redis.call('HDEL', key, 'error', 'worker', 'started_ms', 'completed_ms')
    redis.call('ZADD', DEADLINES, deadline, id)
    if times[3] then
      redis.call('SADD', PENDING .. times[3], id)
    end
    need_loras(id)
    enqueue(id)
    replayed[#replayed + 1] = id
  end
end
return replayed
