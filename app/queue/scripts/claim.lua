-- Lease the job that has waited longest, and those behind it that may share its batch.
-- ARGV: worker, model, most pictures (the first job is taken whatever it holds), lease in ms
-- Returns a list of jobs' fields.
local worker, model, room, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local queue = QUEUE .. model
local first = redis.call('ZRANGE', queue, 0, 0)[1]
if not first then
  return {}
end

local lane = LANE .. model .. ':' .. redis.call('HGET', JOB .. first, 'batch_key')
local now = now_ms()
local jobs = {}
for _, id in ipairs(redis.call('ZRANGE', lane, 0, room - 1)) do
  local key = JOB .. id
  local pictures = tonumber(redis.call('HGET', key, 'pictures'))
  if #jobs > 0 and pictures > room then
    break
  end
  room = room - pictures
  redis.call('ZREM', queue, id)
  redis.call('ZREM', lane, id)
  redis.call('ZADD', LEASES, now + lease_ms, id)
  redis.call('HSET', key, 'status', 'in_progress', 'worker', worker, 'started_ms', now, 'step', 0)
  redis.call('HINCRBY', key, 'attempts', 1)
  jobs[#jobs + 1] = redis.call('HGETALL', key)
end
return jobs
