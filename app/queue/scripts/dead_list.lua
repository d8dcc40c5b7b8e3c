-- The jobs given up as lost, newest first.
-- ARGV: most jobs
-- Returns a list of jobs' fields.
local jobs = {}
for _, id in ipairs(redis.call('ZREVRANGE', DEAD, 0, ARGV[1] - 1)) do
  jobs[#jobs + 1] = redis.call('HGETALL', JOB .. id)
end
return jobs
