-- The jobs given up as lost, newest first.
-- ARGV: most jobs
-- Returns a list of jobs' fields.
local jobs = {}
for _, id in ipairs(redis.call('ZREVRANGE', DEAD, 0, ARGV[1] - 1)) do
  local fields = redis.call('HGETALL', JOB .. id)
  if #fields > 0 then
    jobs[#jobs + 1] = fields
  end
end
return jobs
