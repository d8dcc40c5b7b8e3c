-- Write an error, once, by the worker that holds the job.
-- ARGV: worker, id, error
-- Returns 1, or 0 when the worker no longer holds it.
local worker, id = ARGV[1], ARGV[2]
if not held_by(id, worker) then
  return 0
end
close(id, 'failed', 'error', ARGV[3])
return 1
