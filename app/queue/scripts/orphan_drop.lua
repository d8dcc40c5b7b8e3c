-- Remove the note that a job's client has left.
-- args: id, token
-- Returns 1, or 0 if an equal request has taken the job over, or its time is over.
local orphans = redis.call('HGET', JOB .. args.id, 'orphans')
if not orphans then
  return 0
end
return redis.call('LREM', orphans, 1, args.id .. ' ' .. args.token)
