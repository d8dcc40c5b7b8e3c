-- Read a job; it expires here if its deadline has passed.
-- args: id
-- Returns its fields; none where there is no such job.
expire_late(args.id)
return redis.call('HGETALL', JOB .. args.id)
