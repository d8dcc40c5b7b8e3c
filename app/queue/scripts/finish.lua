-- Write a result, once, by the worker that holds the job.
-- ARGV: worker, id, result, retention in ms
-- Returns 1, or 0 when the worker no longer holds it.
local worker, id = ARGV[1], ARGV[2]
if not held_by(id, worker) then
  return 0
end
close(id, 'completed', 'result', ARGV[3], ARGV[4])
return 1
