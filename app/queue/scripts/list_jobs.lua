-- List a part of a tenant's jobs, in the order they came in.
-- Bound: the entries looked at.
-- args: tenant, place (where to begin: an entry's score, '(' before it for the next, or '+inf', '-inf'),
--   status (optional), models (optional), most (jobs), most_entries (looked at), oldest_first
-- Returns {where to go on, or '' at the end, the jobs' fields…}.
local models
if args.models then
  models = {}
  for _, model in ipairs(args.models) do
    models[model] = true
  end
end
local range, last = 'ZREVRANGEBYSCORE', '-inf'
if args.oldest_first then
  range, last = 'ZRANGEBYSCORE', '+inf'
end
local entries = redis.call(range, OWNED .. args.tenant, args.place, last, 'WITHSCORES', 'LIMIT', 0, args.most_entries)
local page = { '' }
for i = 1, #entries, 2 do
  local id = entries[i]
  page[1] = '(' .. entries[i + 1]
  expire_late(id)
  local job = redis.call('HMGET', JOB .. id, 'status', 'model')
  if job[1] and (not args.status or args.status == job[1]) and (not models or models[job[2]]) then
    page[#page + 1] = redis.call('HGETALL', JOB .. id)
    if #page > args.most then
      return page
    end
  end
end
if #entries < 2 * args.most_entries then
  page[1] = ''
end
return page
