-- Precedes each script, after the key names and METRICS. Each count is made once, with its transition.

-- More different fields than a catalog's models and the code's own words can make; beyond it, what is new is not kept.
local COUNTS_MOST = 20000
local ERRORS_KEPT = 50

local function count_field(by, ...)
  local field = cjson.encode({ ... })
  if redis.call('HEXISTS', COUNTS, field) == 1 or redis.call('HLEN', COUNTS) < COUNTS_MOST then
    redis.call('HINCRBYFLOAT', COUNTS, field, by)
  end
end

local function count(metric, ...)
  count_field(1, metric.name, ...)
end

-- One observation: the number of its bucket, from 1, and the sum.
local function observe(metric, value, ...)
  local number = #metric.buckets + 1
  for i, most in ipairs(metric.buckets) do
    if value <= most then
      number = i
      break
    end
  end
  local labels = { ... }
  labels[#labels + 1] = tostring(number)
  count_field(1, metric.name, unpack(labels))
  labels[#labels] = 'sum'
  count_field(value, metric.name, unpack(labels))
end

-- A code or reason as a label: a short word, or 'other'.
local function as_label(text)
  if type(text) ~= 'string' then
    return ''
  end
  return #text <= 40 and string.match(text, '^[a-z][a-z0-9_]*$') or 'other'
end

-- A job's end. `value` is its result or its error as JSON, if it has one.
local function count_end(id, status, value)
  local job = redis.call('HMGET', JOB .. id, 'model', 'attempts')
  local model, attempts = job[1], tonumber(job[2])
  local ending = value and cjson.decode(value) or {}
  count(METRICS.JOBS, model, status)
  if ending.code then
    count(METRICS.ERRORS, model, as_label(ending.code))
    local at_ms = redis.call('HGET', JOB .. id, 'completed_ms')
    redis.call('LPUSH', ERRORS, cjson.encode({ at_ms, id, model, as_label(ending.code) }))
    redis.call('LTRIM', ERRORS, 0, ERRORS_KEPT - 1)
  end
  if attempts > 1 then
    count_field(attempts - 1, METRICS.RETRIES.name, model)
  end
  if status ~= 'completed' then
    return
  end
  local nag, timings = ending.nag, ending.timings
  count(METRICS.GUIDANCE, model, tostring(nag.applied), as_label(nag.reason))
  if nag.applied then
    observe(METRICS.SCALE, nag.scale, model)
  end
  observe(METRICS.E2E, timings.total_ms / 1000, model)
  observe(METRICS.QUEUE_TIME, timings.queue_ms / 1000, model)
  observe(METRICS.ENCODE_TIME, timings.encode_ms / 1000, model)
  observe(METRICS.DENOISE_TIME, timings.denoise_ms / 1000, model)
  observe(METRICS.DECODE_TIME, timings.decode_ms / 1000, model)
end
