-- Read how much work waits for each model, and how fast it is done.
-- Bound: the models that ever had a queue.
-- Returns a list of {model, jobs waiting, their work, work in progress, work measured, the milliseconds that took}.
local loads = {}
for _, model in ipairs(redis.call('SMEMBERS', MODELS)) do
  local measured = redis.call('HMGET', RATE .. model, 'work', 'busy_ms')
  loads[#loads + 1] = {
    model, redis.call('ZCARD', QUEUE .. model), redis.call('HGET', QUEUED_WORK, model) or '0',
    redis.call('HGET', HELD_WORK, model) or '0', measured[1] or '0', measured[2] or '0',
  }
end
return loads
