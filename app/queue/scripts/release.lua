-- Hand jobs back to their place in the queue; the attempt does not count.
-- Bound: the ids given.
-- ARGV: worker, ids…
-- Returns the ids that were handed back.
local worker = ARGV[1]
local released = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  if held_by(id, worker) then
    redis.call('HINCRBY', JOB .. id, 'attempts', -1)
    requeue(id)
    released[#released + 1] = id
  end
end
return released
