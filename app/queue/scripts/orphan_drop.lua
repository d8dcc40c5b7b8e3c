-- Forget that a job's client has left.
-- ARGV: job id, token of the leaving
-- Returns 1, or 0 if an equal request has taken the job over, or its time is over.
local orphans = redis.call('HGET', JOB .. ARGV[1], 'orphans')
if not orphans then
  return 0
end
return redis.call('LREM', orphans, 1, ARGV[1] .. ' ' .. ARGV[2])
