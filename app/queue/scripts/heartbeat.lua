-- Extend the leases of the jobs a worker still holds, and note how far each of them is.
-- Bound: the ids given.
-- ARGV: worker, lease in ms, id and step of each job…
-- Returns {id, status} of those it no longer holds, those whose deadline has passed among them; the status of a job
-- that is deleted is ''.
local worker = ARGV[1]
local ends = now_ms() + tonumber(ARGV[2])
local lost = {}
for i = 3, #ARGV, 2 do
  local id, step = ARGV[i], ARGV[i + 1]
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
