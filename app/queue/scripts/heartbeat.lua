-- Extend the leases of the jobs that a worker still holds, and record the step of each.
-- Bound: the ids given.
-- args: worker, lease_ms, steps (a list of [id, step])
-- Returns {id, status} of those it no longer holds, those whose deadline has passed among them; the status of a job
-- that is deleted is ''.
local ends = now_ms() + args.lease_ms
local lost = {}
for _, job in ipairs(args.steps) do
  local id, step = job[1], job[2]
  if held_by(id, args.worker) and not expire_late(id) then
    redis.call('ZADD', LEASES, ends, id)
    if tonumber(redis.call('HGET', JOB .. id, 'step')) ~= step then
      redis.call('HSET', JOB .. id, 'step', step)
      publish_event(id, 'progress', '{"step":' .. step .. '}')
    end
  else
    lost[#lost + 1] = { id, redis.call('HGET', JOB .. id, 'status') or '' }
  end
end
return lost
