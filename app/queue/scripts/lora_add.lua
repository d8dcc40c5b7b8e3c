-- Register a LoRA whose file is stored, if its id is free and its tenant has room.
-- Bound: the LoRAs of the tenant.
-- ARGV: tenant or '' for all tenants, id, id that jobs name it by, record, bytes of its file, most LoRAs, most bytes,
-- version
-- Returns 'added', 'taken', 'count' or 'bytes'.
local tenant, id, use = ARGV[1], ARGV[2], ARGV[3]
local own = LORAS .. tenant
if redis.call('HEXISTS', own, id) == 1 or redis.call('HEXISTS', LORAS, id) == 1 then
  return 'taken'
end
if redis.call('HLEN', own) >= tonumber(ARGV[6]) then
  return 'count'
end
local bytes = tonumber(ARGV[5])
for _, other in ipairs(redis.call('HVALS', own)) do
  bytes = bytes + (redis.call('HGET', LORA .. other, 'bytes') or 0)
end
if bytes > tonumber(ARGV[7]) then
  return 'bytes'
end
redis.call('HSET', LORA .. use, 'record', ARGV[4], 'bytes', ARGV[5])
redis.call('HSET', own, id, use)
redis.call('ZREM', LORA_FILES, ARGV[8])
return 'added'
