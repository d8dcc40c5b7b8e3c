-- Remove an uploaded file from the registry.
-- args: tenant, id
redis.call('HDEL', FILES .. args.tenant, args.id)
return 1
