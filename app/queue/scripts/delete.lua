-- Remove a job and all of its data, whatever its status; its worker is notified.
-- args: id
-- Returns its fields as they were at the end; none where there is no such job.
local id = args.id
local status = redis.call('HGET', JOB .. id, 'status')
if not status then
  return {}
end
if (status == 'queued' or status == 'in_progress') and not expire_late(id) then
  withdraw(id, 'cancelled')
end
local fields = redis.call('HGETALL', JOB .. id)
local idempotency = redis.call('HGET', JOB .. id, 'idempotency')
redis.call('ZREM', DEAD, id)
-- Its entry in the tenant's list stays as long as that of any job that has ended: a list that is being read goes on
-- from there.
keep(id, false)
redis.call('DEL', JOB .. id, EVENTS .. id)
if idempotency then
  redis.call('DEL', idempotency)
end
return fields
