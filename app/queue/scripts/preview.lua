-- Tell of a preview, by the worker that holds the job.
-- ARGV: worker, id, the preview as a JSON object
-- Returns 1, or 0 when the worker no longer holds it.
if not held_by(ARGV[2], ARGV[1]) then
  return 0
end
tell(ARGV[2], 'preview', ARGV[3])
return 1
