-- End a job that has not ended; its worker is notified.
-- args: id; to_delete, whether it is cancelled in order to be deleted
-- Returns {'cancelled' | 'ended', the job's fields}, or {'unknown'}.
local id = args.id
local status = redis.call('HGET', JOB .. id, 'status')
if not status then
  return { 'unknown' }
end
local open = (status == 'queued' or status == 'in_progress') and not expire_late(id)
if open then
  if args.to_delete then
    redis.call('HSET', JOB .. id, 'deleted', '1')
  end
  withdraw(id, 'cancelled')
end
return { open and 'cancelled' or 'ended', redis.call('HGETALL', JOB .. id) }
