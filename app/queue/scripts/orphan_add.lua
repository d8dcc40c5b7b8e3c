-- Note that a job's client has left: the next equal request takes the job over.
-- args: id, token (tells this leaving from others), ttl_ms
-- Returns 1, or 0 for a job that no other request can take over.
local orphans = redis.call('HGET', JOB .. args.id, 'orphans')
if not orphans then
  return 0
end
redis.call('RPUSH', orphans, args.id .. ' ' .. args.token)
if redis.call('PTTL', orphans) < args.ttl_ms then
  redis.call('PEXPIRE', orphans, args.ttl_ms)
end
return 1
