-- Lease the planned jobs that still wait, and remember whose turn is next.
-- Bound: the ids given. Asked again after a lost answer, the same worker gets the same jobs.
-- args: worker, model, lease_ms, turns (the planner's memory as JSON), ids
-- Returns a list of jobs' fields; empty when another worker was quicker with all of them.
local worker, model = args.worker, args.model
local now = now_ms()
local served = redis.call('INCR', SERVED)
local jobs = {}
for _, id in ipairs(args.ids) do
  local key = JOB .. id
  local late = expire_late(id)
  if not late and held_by(id, worker) then
    jobs[#jobs + 1] = redis.call('HGETALL', key)
  elseif not late and dequeue(id) then
    redis.call('ZADD', LEASES, now + args.lease_ms, id)
    redis.call('HSET', key, 'status', 'in_progress', 'worker', worker, 'started_ms', now, 'step', 0)
    publish_event(id, 'started', cjson.encode({ attempt = redis.call('HINCRBY', key, 'attempts', 1), worker = worker }))
    redis.call('ZADD', TENANTS .. model, 'XX', served, redis.call('HGET', key, 'tenant'))
    redis.call('HINCRBY', HELD_WORK, model, redis.call('HGET', key, 'work'))
    jobs[#jobs + 1] = redis.call('HGETALL', key)
  end
end
if #jobs > 0 then
  redis.call('HSET', TURNS, model, args.turns)
end
return jobs
