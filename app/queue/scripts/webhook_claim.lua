-- Take webhooks that are due, in turns between tenants; they are due again when the lease ends, unless they are done by
-- then. A tenant gets another one only while this process has more free places than the tenant takes: so, however many
-- tenants have receivers that hang, as many places stay free as any of them holds.
-- Bound: twice the places, tenants, once for each place.
-- args: lease_ms, places (of this process), taken (how many of them each tenant takes)
-- Returns {ms until the next is due, or '' for none, {entry, tries, the job's fields}…}.
local now, places, taken = now_ms(), args.places, args.taken
local free = places
for _, count in pairs(taken) do
  free = free - count
end
local claimed = { '' }

local function take(tenant, entry)
  local id, kind = string.match(entry, '^(%S+) (%S+)')
  local job = redis.call('HGETALL', JOB .. id)
  if #job == 0 or (kind == 'progress' and redis.call('HGET', JOB .. id, 'status') ~= 'in_progress') then
    schedule(tenant, entry)
    return
  end
  schedule(tenant, entry, now + args.lease_ms, 'XX')
  taken[tenant] = (taken[tenant] or 0) + 1
  free = free - 1
  claimed[#claimed + 1] = { entry, redis.call('HINCRBY', WEBHOOK_TRIES, entry, 1), job }
end

local tenants = redis.call('ZRANGEBYSCORE', WEBHOOKS_DUE, '-inf', now, 'LIMIT', 0, 2 * places)
for _ = 1, places do
  for _, tenant in ipairs(tenants) do
    if (taken[tenant] or 0) < free then
      local due = redis.call('ZRANGEBYSCORE', WEBHOOKS .. tenant, '-inf', now, 'LIMIT', 0, 1)
      if due[1] then
        take(tenant, due[1])
      end
    end
  end
end
-- One that is due by now waits for a place, which its end makes known.
local next = redis.call('ZRANGEBYSCORE', WEBHOOKS_DUE, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
if next[2] then
  claimed[1] = string.format('%d', next[2] - now)
end
return claimed
