-- Bring the indexes back in line with the open jobs: a server that evicts keys drops either of them.
-- ARGV: number of the first job, most jobs a call
-- Returns {number of jobs looked at, ids struck off…}.
local ids = redis.call('ZRANGE', DEADLINES, ARGV[1], ARGV[1] + ARGV[2] - 1)
local answer = { #ids }
for _, id in ipairs(ids) do
  local status = redis.call('HGET', JOB .. id, 'status')
  if not status then
    strike_off(id)
    answer[#answer + 1] = id
  elseif status == 'queued' then
    index(id)
  else
    redis.call('ZADD', LEASES, 'NX', now_ms(), id)
  end
end
return answer
