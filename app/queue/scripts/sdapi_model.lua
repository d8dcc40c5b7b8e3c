-- The model that a tenant has chosen by /sdapi/v1/options, after it was set if one is given.
-- ARGV: tenant, model or nothing
if ARGV[2] then
  redis.call('HSET', SDAPI_MODELS, ARGV[1], ARGV[2])
end
return redis.call('HGET', SDAPI_MODELS, ARGV[1]) or ''
