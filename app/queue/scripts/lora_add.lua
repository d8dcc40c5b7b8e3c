-- Register a LoRA whose file is stored, if its id is free and its tenant has room.
-- Bound: the LoRAs of the tenant.
-- args: tenant ('' for all tenants), id, use_id (by which jobs name it), record (JSON), bytes (of its file), version,
--   most (LoRAs), most_bytes
-- Returns 'added', 'taken', 'count' or 'bytes'.
local own, id = LORAS .. args.tenant, args.id
if redis.call('HEXISTS', own, id) == 1 or redis.call('HEXISTS', LORAS, id) == 1 then
  return 'taken'
end
if redis.call('HLEN', own) >= args.most then
  return 'count'
end
local bytes = args.bytes
for _, other in ipairs(redis.call('HVALS', own)) do
  bytes = bytes + (redis.call('HGET', LORA .. other, 'bytes') or 0)
end
if bytes > args.most_bytes then
  return 'bytes'
end
redis.call('HSET', LORA .. args.use_id, 'record', args.record, 'bytes', args.bytes)
redis.call('HSET', own, id, args.use_id)
redis.call('ZREM', LORA_FILES, args.version)
return 'added'
