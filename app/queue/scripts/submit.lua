-- Store a job and queue it; or answer with the earlier job of the same idempotency key.
-- Bound: the models that ever had a queue.
-- args: id, model, tenant, rank (of its priority), cost, work, request (JSON), warnings (JSON), deadline_ms (from now),
--   trace, loras (uploaded ones that it uses), most_queued (jobs of all models), most_queued_of_model, fingerprint;
--   optional: idempotency (name of the key's hash), api_key (its id), most_pending (its jobs that have not ended),
--   webhook (JSON), orphans (name of the list of the jobs of equal requests whose clients have left)
-- Returns {'new' | 'earlier', the job's fields}, {'conflict'}, {'no_lora', LoRA}, or
--   {'full', 'all' | 'model' | 'key'}.
local id, model, idempotency, orphans = args.id, args.model, args.idempotency, args.orphans
local key = JOB .. id

if redis.call('EXISTS', key) == 1 then -- the client sent it again after losing the answer
  return { 'earlier', redis.call('HGETALL', key) }
end
if idempotency then
  local earlier = redis.call('HMGET', idempotency, 'job', 'fingerprint')
  if earlier[1] and redis.call('EXISTS', JOB .. earlier[1]) == 1 then
    if earlier[2] ~= args.fingerprint then
      return { 'conflict' }
    end
    return { 'earlier', redis.call('HGETALL', JOB .. earlier[1]) }
  end
end
while orphans do
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
for _, use in ipairs(args.loras) do
  if redis.call('EXISTS', LORA .. use) == 0 then
    return { 'no_lora', use }
  end
end

local api_key = args.api_key
local function has_too_many_pending()
  return api_key and args.most_pending and redis.call('SCARD', PENDING .. api_key) >= args.most_pending
end
if has_too_many_pending() then
  for _, other in ipairs(redis.call('SMEMBERS', PENDING .. api_key)) do
    if redis.call('EXISTS', JOB .. other) == 0 then
      redis.call('SREM', PENDING .. api_key, other)
    end
  end
end
if has_too_many_pending() then
  count(METRICS.JOBS_REFUSED, model, 'key')
  return { 'full', 'key' }
end
if redis.call('ZCARD', QUEUE .. model) >= args.most_queued_of_model then
  count(METRICS.JOBS_REFUSED, model, 'model')
  return { 'full', 'model' }
end
redis.call('SADD', MODELS, model)
local waiting = 0
for _, other in ipairs(redis.call('SMEMBERS', MODELS)) do
  waiting = waiting + redis.call('ZCARD', QUEUE .. other)
end
if waiting >= args.most_queued then
  count(METRICS.JOBS_REFUSED, model, 'all')
  return { 'full', 'all' }
end

local now, sequence = now_ms(), redis.call('INCR', SEQUENCE)
local deadline = now + args.deadline_ms
redis.call('HSET', key, 'id', id, 'model', model, 'tenant', args.tenant, 'rank', args.rank,
  'cost', args.cost, 'work', args.work, 'request', args.request, 'warnings', args.warnings, 'trace', args.trace,
  'status', 'queued', 'created_ms', now, 'queued_ms', now, 'deadline_ms', deadline, 'attempts', 0, 'step', 0,
  'sequence', sequence)
redis.call('ZADD', OWNED .. args.tenant, sequence, id)
redis.call('ZADD', DEADLINES, deadline, id)
if idempotency then
  redis.call('HSET', key, 'idempotency', idempotency)
  redis.call('PERSIST', idempotency)
  redis.call('HSET', idempotency, 'job', id, 'fingerprint', args.fingerprint)
end
count(METRICS.JOBS_ACCEPTED, model, ({ 'high', 'normal', 'low' })[args.rank + 1])
if api_key then
  redis.call('HSET', key, 'api_key', api_key)
  redis.call('SADD', PENDING .. api_key, id)
end
if orphans then
  redis.call('HSET', key, 'orphans', orphans)
end
if args.webhook then
  redis.call('HSET', key, 'webhook', args.webhook)
end
if #args.loras > 0 then
  redis.call('HSET', key, 'loras', table.concat(args.loras, ' '))
  need_loras(id)
end
enqueue(id)
return { 'new', redis.call('HGETALL', key) }
