-- A job as it stands at this moment: its deadline is kept to even where nobody else looks.
-- ARGV: id
-- Returns its fields; none where there is no such job.
expire_late(ARGV[1])
return redis.call('HGETALL', JOB .. ARGV[1])
