-- Remove a LoRA, unless jobs that have not ended need it. Its file is left over.
-- Bound: those jobs.
-- args: tenant ('' for all tenants), id
-- Returns {'dropped', record}, {'needed', number of jobs} or {'unknown'}.
local own, id = LORAS .. args.tenant, args.id
local use = redis.call('HGET', own, id)
if not use then
  return { 'unknown' }
end
for _, job in ipairs(redis.call('SMEMBERS', LORA_JOBS .. use)) do
  if redis.call('EXISTS', JOB .. job) == 0 then -- evicted by the server, or deleted by hand
    redis.call('SREM', LORA_JOBS .. use, job)
  end
end
local needed = redis.call('SCARD', LORA_JOBS .. use)
if needed > 0 then
  return { 'needed', needed }
end
local record = redis.call('HGET', LORA .. use, 'record')
redis.call('HDEL', own, id)
redis.call('DEL', LORA .. use)
redis.call('ZADD', LORA_FILES, now_ms(), string.match(use, '[^@]+$'))
return { 'dropped', record }
