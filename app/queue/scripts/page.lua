-- Part of a tenant's jobs, in the order they came in.
-- Bound: the entries looked at.
-- ARGV: tenant, where to begin (an entry's score, '(' before it for the next, or '+inf', '-inf'), status or '',
--   models as JSON or '', most jobs, most entries looked at, which goes first: 'newest' or 'oldest'
-- Returns {where to go on, or '' at the end, the jobs' fields…}.
local models
if ARGV[4] ~= '' then
  models = {}
  for _, model in ipairs(cjson.decode(ARGV[4])) do
    models[model] = true
  end
end
local range, last = 'ZREVRANGEBYSCORE', '-inf'
if ARGV[7] == 'oldest' then
  range, last = 'ZRANGEBYSCORE', '+inf'
end
local entries = redis.call(range, OWNED .. ARGV[1], ARGV[2], last, 'WITHSCORES', 'LIMIT', 0, ARGV[6])
local page = { '' }
for i = 1, #entries, 2 do
  local id = entries[i]
  page[1] = '(' .. entries[i + 1]
  expire_late(id)
  local job = redis.call('HMGET', JOB .. id, 'status', 'model')
  if job[1] and (ARGV[3] == '' or ARGV[3] == job[1]) and (not models or models[job[2]]) then
    page[#page + 1] = redis.call('HGETALL', JOB .. id)
    if #page > tonumber(ARGV[5]) then
      return page
    end
  end
end
if #entries < 2 * tonumber(ARGV[6]) then
  page[1] = ''
end
return page
