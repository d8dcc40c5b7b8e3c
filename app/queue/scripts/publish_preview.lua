-- Publish a preview, by the worker that holds the job.
-- args: worker, id, preview (a JSON object)
-- Returns 1, or 0 when the worker no longer holds it.
if not held_by(args.id, args.worker) then
  return 0
end
publish_event(args.id, 'preview', args.preview)
return 1
