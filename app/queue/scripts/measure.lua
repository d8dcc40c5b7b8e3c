-- Every count, and how the queues stand.
-- Bound: the lanes that hold a job, so the queue's limit, and the jobs in progress.
-- Returns JSON: {counts: [field, value…], queues: [[model, priority, waiting, age of the oldest in ms]…],
--   running: {model: jobs}, dead}.
local PRIORITIES = { 'high', 'normal', 'low' }
local now = now_ms()
local queues, running = {}, {}
for _, model in ipairs(redis.call('SMEMBERS', MODELS)) do
  running[model] = 0
  local waiting, oldest = { 0, 0, 0 }, { now, now, now }
  for _, tenant in ipairs(redis.call('ZRANGE', TENANTS .. model, 0, -1)) do
    for rank = 1, 3 do
      local name = string.format('%d', rank - 1)
      for _, batch_key in ipairs(redis.call('ZRANGE', lanes_of(model, tenant, name), 0, -1)) do
        local lane = LANE .. cjson.encode({ model, tenant, name, batch_key })
        waiting[rank] = waiting[rank] + redis.call('ZCARD', lane)
        local first = redis.call('ZRANGE', lane, 0, 0)[1]
        local since = first and redis.call('HGET', JOB .. first, 'queued_ms') or now
        oldest[rank] = math.min(oldest[rank], tonumber(since))
      end
    end
  end
  for rank, priority in ipairs(PRIORITIES) do
    queues[#queues + 1] = { model, priority, waiting[rank], now - oldest[rank] }
  end
end
for _, id in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
  local model = redis.call('HGET', JOB .. id, 'model')
  if model then
    running[model] = (running[model] or 0) + 1
  end
end
return cjson.encode({
  counts = redis.call('HGETALL', COUNTS), queues = queues, running = running, dead = redis.call('ZCARD', DEAD),
})
