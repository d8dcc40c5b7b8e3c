-- Bring jobs and indexes back in line: a server that evicts keys drops either. A call handles a part of each.
-- args: cursor (among the keys), first (number of the first of the open jobs), most (of each per call)
-- Returns {cursor to go on, number to go on, ids of removed jobs…}.
local first, most = args.first, args.most
local open = redis.call('ZRANGE', DEADLINES, first, first + most - 1)
local answer = {}
for _, id in ipairs(open) do
  local status = redis.call('HGET', JOB .. id, 'status')
  if not status then
    remove_lost_job(id)
    answer[#answer + 1] = id
  elseif status == 'queued' then
    index(id)
  end
end
table.insert(answer, 1, #open < most and 0 or first + most - #answer)

local page = redis.call('SCAN', args.cursor, 'MATCH', JOB .. '*', 'COUNT', most)
table.insert(answer, 1, page[1])
for _, key in ipairs(page[2]) do
  local id = string.sub(key, #JOB + 1)
  local job = redis.call('HMGET', key, 'status', 'deadline_ms')
  if job[1] == 'queued' or job[1] == 'in_progress' then
    redis.call('ZADD', DEADLINES, 'NX', job[2], id)
  end
  if job[1] == 'queued' then
    index(id)
  elseif job[1] == 'in_progress' then
    redis.call('ZADD', LEASES, 'NX', now_ms(), id)
  end
end
return answer
