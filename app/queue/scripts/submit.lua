-- Store a job and queue it; or answer with the earlier job of the same idempotency key.
-- Bound: the models that ever had a queue.
-- ARGV: id, model, tenant, priority's rank, cost, work, request, warnings, deadline in ms from now,
--   idempotency key or '', fingerprint, most queued jobs of all models, most of this one,
--   id of the API key or '', most of its jobs that have not ended or '', webhook or '', traceparent or '',
--   uploaded LoRAs that it uses, with spaces, list of the jobs of equal requests whose clients have left or ''
-- Returns {'new' | 'earlier', the job's fields}, {'conflict'}, {'no_lora', LoRA}, or
--   {'full', 'all' | 'model' | 'key'}.
local id, model, idempotency, fingerprint = ARGV[1], ARGV[2], ARGV[10], ARGV[11]
local key = JOB .. id

if redis.call('EXISTS', key) == 1 then -- the client sent it again after losing the answer
  return { 'earlier', redis.call('HGETALL', key) }
end
if idempotency ~= '' then
  local earlier = redis.call('HMGET', idempotency, 'job', 'fingerprint')
  if earlier[1] and redis.call('EXISTS', JOB .. earlier[1]) == 1 then
    if earlier[2] ~= fingerprint then
      return { 'conflict' }
    end
    return { 'earlier', redis.call('HGETALL', JOB .. earlier[1]) }
  end
end
local orphans = ARGV[19]
while orphans ~= '' do
  local orphan = redis.call('LPOP', orphans)
  if not orphan then
    break
  end
  local other = JOB .. string.match(orphan, '^%S+')
  local status = redis.call('HGET', other, 'status')
  if status == 'queued' or status == 'in_progress' or status == 'completed' then
    return { 'earlier', redis.call('HGETALL', other) }
  end
end
for use in string.gmatch(ARGV[18], '%S+') do
  if redis.call('EXISTS', LORA .. use) == 0 then
    return { 'no_lora', use }
  end
end

local api_key = ARGV[14]
local function pending()
  return redis.call('SCARD', PENDING .. api_key)
end
if ARGV[15] ~= '' and pending() >= tonumber(ARGV[15]) then
  for _, other in ipairs(redis.call('SMEMBERS', PENDING .. api_key)) do
    if redis.call('EXISTS', JOB .. other) == 0 then
      redis.call('SREM', PENDING .. api_key, other)
    end
  end
end
if ARGV[15] ~= '' and pending() >= tonumber(ARGV[15]) then
  count(METRICS.JOBS_REFUSED, model, 'key')
  return { 'full', 'key' }
end
if redis.call('ZCARD', QUEUE .. model) >= tonumber(ARGV[13]) then
  count(METRICS.JOBS_REFUSED, model, 'model')
  return { 'full', 'model' }
end
redis.call('SADD', MODELS, model)
local waiting = 0
for _, each in ipairs(redis.call('SMEMBERS', MODELS)) do
  waiting = waiting + redis.call('ZCARD', QUEUE .. each)
end
if waiting >= tonumber(ARGV[12]) then
  count(METRICS.JOBS_REFUSED, model, 'all')
  return { 'full', 'all' }
end

local now, sequence = now_ms(), redis.call('INCR', SEQUENCE)
local deadline = now + ARGV[9]
redis.call('HSET', key, 'id', id, 'model', model, 'tenant', ARGV[3], 'rank', ARGV[4], 'cost', ARGV[5],
  'work', ARGV[6], 'request', ARGV[7], 'warnings', ARGV[8], 'status', 'queued', 'created_ms', now,
  'trace', ARGV[17], 'queued_ms', now, 'deadline_ms', deadline, 'attempts', 0, 'step', 0, 'sequence', sequence)
redis.call('ZADD', OWNED .. ARGV[3], sequence, id)
redis.call('ZADD', DEADLINES, deadline, id)
if idempotency ~= '' then
  redis.call('HSET', key, 'idempotency', idempotency)
  redis.call('PERSIST', idempotency)
  redis.call('HSET', idempotency, 'job', id, 'fingerprint', fingerprint)
end
count(METRICS.JOBS_ACCEPTED, model, ({ 'high', 'normal', 'low' })[ARGV[4] + 1])
if api_key ~= '' then
  redis.call('HSET', key, 'api_key', api_key)
  redis.call('SADD', PENDING .. api_key, id)
end
if orphans ~= '' then
  redis.call('HSET', key, 'orphans', orphans)
end
if ARGV[16] ~= '' then
  redis.call('HSET', key, 'webhook', ARGV[16])
end
if ARGV[18] ~= '' then
  redis.call('HSET', key, 'loras', ARGV[18])
  need_loras(id)
end
enqueue(id)
return { 'new', redis.call('HGETALL', key) }
