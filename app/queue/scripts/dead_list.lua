-- List the jobs given up as lost, the newest first.
-- args: most
-- Returns a list of jobs' fields.
local jobs = {}
for _, id in ipairs(redis.call('ZREVRANGE', DEAD, 0, args.most - 1)) do
  local fields = redis.call('HGETALL', JOB .. id)
  if #fields > 0 then
    jobs[#jobs + 1] = fields
  end
end
return jobs
