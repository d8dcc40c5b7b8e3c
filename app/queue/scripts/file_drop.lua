-- Forget an uploaded file.
-- ARGV: tenant, file id
redis.call('HDEL', FILES .. ARGV[1], ARGV[2])
return 1
