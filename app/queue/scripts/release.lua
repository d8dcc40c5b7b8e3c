-- Return jobs to their place in the queue; the attempt does not count.
-- Bound: the ids given.
-- args: worker, ids
-- Returns the ids that were handed back.
local released = {}
for _, id in ipairs(args.ids) do
  if held_by(id, args.worker) then
    redis.call('HINCRBY', JOB .. id, 'attempts', -1)
    requeue(id)
    released[#released + 1] = id
  end
end
return released
