-- Write a result, once, by the worker that holds the job, and update the measured speed of the model.
-- args: worker, id, result (JSON), fade_ms (of work, after which a measurement has faded to 1/e)
-- Returns 1, or 0 when the worker no longer holds it or its deadline has passed.
local worker, id = args.worker, args.id
if not held_by(id, worker) or expire_late(id) then
  return 0
end
close(id, 'completed', 'result', args.result)

-- A worker's time is counted once, whatever it finishes together: from its result before, or from the claim.
local job = redis.call('HMGET', JOB .. id, 'model', 'work', 'started_ms')
local now, before = now_ms(), tonumber(redis.call('HGET', FINISHED, worker) or 0)
local busy_ms = math.max(0, now - math.max(before, tonumber(job[3])))
local rate = RATE .. job[1]
local measured = redis.call('HMGET', rate, 'work', 'busy_ms')
local faded = math.exp(-busy_ms / args.fade_ms)
redis.call('HSET', rate,
  'work', string.format('%.3f', tonumber(measured[1] or 0) * faded + tonumber(job[2])),
  'busy_ms', string.format('%.3f', tonumber(measured[2] or 0) * faded + busy_ms))
redis.call('HSET', FINISHED, worker, now)
return 1
