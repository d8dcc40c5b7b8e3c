-- Read the model that a tenant has chosen by /sdapi/v1/options, after it was set if one is given.
-- args: tenant, model (optional)
if args.model then
  redis.call('HSET', SDAPI_MODELS, args.tenant, args.model)
end
return redis.call('HGET', SDAPI_MODELS, args.tenant) or ''
