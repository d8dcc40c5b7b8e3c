-- Store a job and queue it; or answer with the earlier job of the same idempotency key.
-- ARGV: id, model, batch key, pictures, request, warnings, idempotency key or '', fingerprint, most queued jobs
-- Returns {'new' | 'earlier', the job's fields}, {'conflict'} or {'full'}.
local id, model, idempotency, fingerprint = ARGV[1], ARGV[2], ARGV[7], ARGV[8]
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

redis.call('SADD', MODELS, model)
local waiting = 0
for _, each in ipairs(redis.call('SMEMBERS', MODELS)) do
  waiting = waiting + redis.call('ZCARD', QUEUE .. each)
end
if waiting >= tonumber(ARGV[9]) then
  return { 'full' }
end

redis.call('HSET', key, 'id', id, 'model', model, 'batch_key', ARGV[3], 'pictures', ARGV[4], 'request', ARGV[5],
  'warnings', ARGV[6], 'status', 'queued', 'created_ms', now_ms(), 'attempts', 0, 'step', 0,
  'sequence', redis.call('INCR', SEQUENCE))
if idempotency ~= '' then
  redis.call('HSET', key, 'idempotency', idempotency)
  redis.call('PERSIST', idempotency)
  redis.call('HSET', idempotency, 'job', id, 'fingerprint', fingerprint)
end
enqueue(id)
return { 'new', redis.call('HGETALL', key) }
