-- Put before each script, after the key names. Times are milliseconds of this server's clock.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Into the place that its first submission gave it: a job handed back keeps its turn.
local function enqueue(id)
  local place = redis.call('HMGET', JOB .. id, 'model', 'batch_key', 'sequence')
  redis.call('ZADD', QUEUE .. place[1], place[3], id)
  redis.call('ZADD', LANE .. place[1] .. ':' .. place[2], place[3], id)
  redis.call('PUBLISH', QUEUED, place[1])
end

-- Back to waiting, from a worker that let it go or was lost.
local function requeue(id)
  redis.call('ZREM', LEASES, id)
  redis.call('HSET', JOB .. id, 'status', 'queued', 'step', 0)
  redis.call('HDEL', JOB .. id, 'worker', 'started_ms')
  enqueue(id)
end

local function held_by(id, worker)
  local holder = redis.call('HMGET', JOB .. id, 'status', 'worker')
  return holder[1] == 'in_progress' and holder[2] == worker
end

-- A job's last transition: status, and the field that says how it ended.
local function close(id, status, field, value, retention_ms)
  local key = JOB .. id
  redis.call('HSET', key, 'status', status, field, value, 'completed_ms', now_ms())
  redis.call('ZREM', LEASES, id)
  redis.call('PEXPIRE', key, retention_ms)
  local idempotency = redis.call('HGET', key, 'idempotency')
  if idempotency then
    redis.call('PEXPIRE', idempotency, retention_ms)
  end
  redis.call('PUBLISH', DONE, id)
end
