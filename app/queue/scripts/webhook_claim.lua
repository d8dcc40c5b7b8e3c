-- Take webhooks that are due; they are due again when the lease ends, unless they are done by then.
-- ARGV: lease in ms, most webhooks
-- Returns {ms until the next is due, or '' for none, {entry, tries, the job's fields}…}.
local now = now_ms()
local claimed = { '' }
for _, entry in ipairs(redis.call('ZRANGEBYSCORE', WEBHOOKS, '-inf', now, 'LIMIT', 0, ARGV[2])) do
  local id, kind = string.match(entry, '^(%S+) (%S+)')
  local job = redis.call('HGETALL', JOB .. id)
  if #job == 0 or (kind == 'progress' and redis.call('HGET', JOB .. id, 'status') ~= 'in_progress') then
    redis.call('ZREM', WEBHOOKS, entry)
    redis.call('HDEL', WEBHOOK_TRIES, entry)
  else
    redis.call('ZADD', WEBHOOKS, now + ARGV[1], entry)
    claimed[#claimed + 1] = { entry, redis.call('HINCRBY', WEBHOOK_TRIES, entry, 1), job }
  end
end
local next = redis.call('ZRANGE', WEBHOOKS, 0, 0, 'WITHSCORES')
if next[2] then
  claimed[1] = string.format('%d', next[2] - now)
end
return claimed
