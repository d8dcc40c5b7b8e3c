-- Note that a job's client has left: the next equal request takes the job over.
-- ARGV: job id, token that tells this leaving from others, milliseconds that it is remembered
-- Returns 1, or 0 for a job that no other request can take over.
local orphans = redis.call('HGET', JOB .. ARGV[1], 'orphans')
if not orphans then
  return 0
end
redis.call('RPUSH', orphans, ARGV[1] .. ' ' .. ARGV[2])
if redis.call('PTTL', orphans) < tonumber(ARGV[3]) then
  redis.call('PEXPIRE', orphans, ARGV[3])
end
return 1
