-- Precedes each script, after the key names and RETENTION_MS. Times are milliseconds of this server's clock.

-- What the caller passes, by the names that each script lists. An optional argument is absent.
local args = cjson.decode(ARGV[1])

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Put a webhook on its tenant's schedule or move it there, due at `at`; without `at`, remove it.
-- `option` is one of ZADD's.
local function schedule(tenant, entry, at, option)
  local own = WEBHOOKS .. tenant
  if at then
    redis.call('ZADD', own, option, at, entry)
  else
    redis.call('ZREM', own, entry)
    redis.call('HDEL', WEBHOOK_TRIES, entry)
  end
  local first = redis.call('ZRANGE', own, 0, 0, 'WITHSCORES')
  if first[2] then
    redis.call('ZADD', WEBHOOKS_DUE, first[2], tenant)
  else
    redis.call('ZREM', WEBHOOKS_DUE, tenant)
  end
end

-- Put an event on the schedule if the job's webhook wants it. Progress is sent at most once per second.
local function schedule_webhook(id, kind, entry)
  local job = redis.call('HMGET', JOB .. id, 'webhook', 'noticed_ms', 'tenant')
  if not job[1] then
    return
  end
  local is_wanted = false
  for _, event in ipairs(cjson.decode(job[1]).events) do
    is_wanted = is_wanted or event == kind
  end
  local now = now_ms()
  if not is_wanted or (kind == 'progress' and now - (job[2] or 0) < 1000) then
    return
  end
  if kind == 'progress' then
    redis.call('HSET', JOB .. id, 'noticed_ms', now)
    entry = 'latest'
  end
  schedule(job[3], id .. ' ' .. kind .. ' ' .. entry, now, 'NX')
  redis.call('PUBLISH', NOTICED, 'due')
end

-- Add an event to a job's stream, which keeps the newest 1000, and publish it. `data` is a JSON object, or nothing.
local function publish_event(id, kind, data)
  local stream = EVENTS .. id
  data = data or '{}'
  local entry = redis.call('XADD', stream, 'MAXLEN', 1000, '*', 'type', kind, 'data', data)
  redis.call('PUBLISH', stream, entry .. ' ' .. kind .. ' ' .. data)
  schedule_webhook(id, kind, entry)
end

local function lane_of(model, tenant, rank)
  return LANE .. cjson.encode({ model, tenant, rank })
end

-- A job that an older version queued is in a lane for its batch key: it leaves that one.
local function leave_former_lane(id)
  local job = redis.call('HMGET', JOB .. id, 'model', 'tenant', 'rank', 'batch_key')
  if not job[4] then
    return
  end
  local lane = LANE .. cjson.encode(job)
  redis.call('ZREM', lane, id)
  if redis.call('EXISTS', lane) == 0 then
    redis.call('ZREM', FORMER_LANES .. cjson.encode({ job[1], job[2], job[3] }), job[4])
  end
  redis.call('HDEL', JOB .. id, 'batch_key')
end

-- Take a job out of its lane, and its tenant off the list if it was the tenant's last one.
local function leave_lane(model, tenant, rank, id)
  redis.call('ZREM', lane_of(model, tenant, rank), id)
  if redis.call('EXISTS', lane_of(model, tenant, '0'), lane_of(model, tenant, '1'), lane_of(model, tenant, '2')) == 0 then
    redis.call('ZREM', TENANTS .. model, tenant)
  end
end

-- Enter a waiting job into the queue's indexes, at the place its first submission gave it: a job handed back keeps its
-- turn. Entered twice, nothing changes.
local function index(id)
  leave_former_lane(id)
  local job = redis.call('HMGET', JOB .. id, 'model', 'tenant', 'rank', 'sequence')
  local model, tenant = job[1], job[2]
  redis.call('ZADD', QUEUE .. model, job[4], id)
  redis.call('ZADD', lane_of(model, tenant, job[3]), job[4], id)
  redis.call('ZADD', TENANTS .. model, 'NX', redis.call('GET', SERVED) or 0, tenant)
end

local function enqueue(id)
  index(id)
  local job = redis.call('HMGET', JOB .. id, 'model', 'work')
  redis.call('HINCRBY', QUEUED_WORK, job[1], job[2])
  redis.call('PUBLISH', QUEUED, job[1])
  publish_event(id, 'queued')
end

-- `work` is not known of a job whose hash is gone; so a queue without jobs is set to no work.
local function leave_queue(model, id, work)
  redis.call('ZREM', QUEUE .. model, id)
  if redis.call('ZCARD', QUEUE .. model) == 0 then
    redis.call('HDEL', QUEUED_WORK, model)
  elseif work then
    redis.call('HINCRBY', QUEUED_WORK, model, '-' .. work)
  end
end

-- Out of the queue. False when it does not wait.
local function dequeue(id)
  local job = redis.call('HMGET', JOB .. id, 'model', 'tenant', 'rank', 'work', 'status')
  if job[5] ~= 'queued' then
    return false
  end
  leave_queue(job[1], id, job[4])
  leave_former_lane(id)
  leave_lane(job[1], job[2], job[3], id)
  return true
end

-- Away from its worker. False when none holds it.
local function unlease(id)
  if redis.call('ZREM', LEASES, id) == 0 then
    return false
  end
  if redis.call('ZCARD', LEASES) == 0 then
    redis.call('DEL', HELD_WORK)
    return true
  end
  local job = redis.call('HMGET', JOB .. id, 'model', 'work')
  if job[1] then
    redis.call('HINCRBY', HELD_WORK, job[1], '-' .. job[2])
  end
  return true
end

-- Back to waiting, from a worker that let it go or was lost.
local function requeue(id)
  unlease(id)
  redis.call('HSET', JOB .. id, 'status', 'queued', 'step', 0)
  redis.call('HDEL', JOB .. id, 'worker', 'started_ms')
  enqueue(id)
end

-- Remove an open job whose hash is gone: evicted by the server, or deleted by hand. Lanes drop it when they are read.
local function remove_lost_job(id)
  redis.call('ZREM', DEADLINES, id)
  unlease(id)
  for _, model in ipairs(redis.call('SMEMBERS', MODELS)) do
    leave_queue(model, id)
  end
end

local function held_by(id, worker)
  local holder = redis.call('HMGET', JOB .. id, 'status', 'worker')
  return holder[1] == 'in_progress' and holder[2] == worker
end

-- From now on the job, its events and its idempotency key are kept for the retention, or for good.
local function keep(id, for_good)
  local job = redis.call('HMGET', JOB .. id, 'tenant', 'idempotency')
  if not job[1] then
    return -- its hash is gone
  end
  local entry = cjson.encode({ job[1], id })
  if for_good then
    redis.call('ZREM', KEPT, entry)
  else
    redis.call('ZADD', KEPT, now_ms() + RETENTION_MS, entry)
  end
  for _, key in ipairs({ JOB .. id, EVENTS .. id, job[2] or nil }) do
    if for_good then
      redis.call('PERSIST', key)
    else
      redis.call('PEXPIRE', key, RETENTION_MS)
    end
  end
end

-- From now on the uploaded LoRAs that a job uses cannot be deleted, until it ends.
local function need_loras(id)
  for use in string.gmatch(redis.call('HGET', JOB .. id, 'loras') or '', '%S+') do
    redis.call('SADD', LORA_JOBS .. use, id)
  end
end

-- A job's last transition: status, and the field that says how it ended, if there is something to say.
local function close(id, status, field, value)
  local key = JOB .. id
  redis.call('HSET', key, 'status', status, 'completed_ms', now_ms())
  if field then
    redis.call('HSET', key, field, value)
  end
  count_end(id, status, value)
  unlease(id)
  local api_key = redis.call('HGET', key, 'api_key')
  if api_key then
    redis.call('SREM', PENDING .. api_key, id)
  end
  for use in string.gmatch(redis.call('HGET', key, 'loras') or '', '%S+') do
    redis.call('SREM', LORA_JOBS .. use, id)
  end
  redis.call('ZREM', DEADLINES, id)
  publish_event(id, status)
  keep(id, false)
  redis.call('PUBLISH', DONE, id)
end

-- A job's end against its worker's will, or before it had one.
local function withdraw(id, status, field, value)
  if not dequeue(id) then
    redis.call('PUBLISH', REVOKED, id)
  end
  close(id, status, field, value)
end

-- Whether the deadline of a job that has not ended has passed; then the job has expired.
local function expire_late(id)
  local deadline = redis.call('ZSCORE', DEADLINES, id)
  if not deadline or tonumber(deadline) > now_ms() then
    return false
  end
  if redis.call('EXISTS', JOB .. id) == 0 then
    remove_lost_job(id)
    return false
  end
  withdraw(id, 'expired', 'error', '{"code":"deadline_exceeded","message":"not done by its deadline"}')
  return true
end
