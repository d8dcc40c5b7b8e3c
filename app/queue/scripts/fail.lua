-- Write an error, once, by the worker that holds the job.
-- args: worker, id, error (JSON)
-- Returns 1, or 0 when the worker no longer holds it.
if not held_by(args.id, args.worker) then
  return 0
end
close(args.id, 'failed', 'error', args.error)
return 1
