-- Forget an uploaded file.
-- args: tenant, id
redis.call('HDEL', FILES .. args.tenant, args.id)
return 1
