-- Read every count and the state of the queues.
-- Bound: the lanes that hold a job, so the queue's limit, and the jobs in progress.
-- Returns JSON: {counts: [field, value…], queues: [[model, priority, waiting, age of the oldest in ms]…],
--   running: {model: jobs}, held: {worker: jobs}, dead, errors: [[ms, job, model, code]…]}.
local PRIORITIES = { 'high', 'normal', 'low' }
local now = now_ms()
local queues, running, held = {}, {}, {}
for _, model in ipairs(redis.call('SMEMBERS', MODELS)) do
  running[model] = 0
  local waiting, oldest = { 0, 0, 0 }, { now, now, now }
  for _, tenant in ipairs(redis.call('ZRANGE', TENANTS .. model, 0, -1)) do
    for rank = 1, 3 do
      local lane = lane_of(model, tenant, string.format('%d', rank - 1))
      waiting[rank] = waiting[rank] + redis.call('ZCARD', lane)
      local first = redis.call('ZRANGE', lane, 0, 0)[1]
      local since = first and redis.call('HGET', JOB .. first, 'queued_ms') or now
      oldest[rank] = math.min(oldest[rank], tonumber(since))
    end
  end
  for rank, priority in ipairs(PRIORITIES) do
    queues[#queues + 1] = { model, priority, waiting[rank], now - oldest[rank] }
  end
end
for _, id in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
  local job = redis.call('HMGET', JOB .. id, 'model', 'worker')
  if job[1] then
    running[job[1]] = (running[job[1]] or 0) + 1
    held[job[2]] = (held[job[2]] or 0) + 1
  end
end
local errors = {}
for i, entry in ipairs(redis.call('LRANGE', ERRORS, 0, -1)) do
  errors[i] = cjson.decode(entry)
end
return cjson.encode({
  counts = redis.call('HGETALL', COUNTS), queues = queues, running = running, held = held,
  errors = errors, dead = redis.call('ZCARD', DEAD),
})
