-- Extend the leases of the jobs a worker still holds, and note how far they are.
-- Bound: the ids given.
-- ARGV: worker, step, lease in ms, ids…
-- Returns {id, status} of those it no longer holds, those whose deadline has passed among them; the status of a job
-- that is deleted is ''.
local worker, step, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local ends = now_ms() + lease_ms
local lost = {}
for i = 4, #ARGV do
  local id = ARGV[i]
  if held_by(id, worker) and not expire_late(id) then
    redis.call('ZADD', LEASES, ends, id)
    if redis.call('HGET', JOB .. id, 'step') ~= step then
      redis.call('HSET', JOB .. id, 'step', step)
      tell(id, 'progress', '{"step":' .. step .. '}')
    end
  else
    lost[#lost + 1] = { id, redis.call('HGET', JOB .. id, 'status') or '' }
  end
end
return lost
