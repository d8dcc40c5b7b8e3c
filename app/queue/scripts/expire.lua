-- End the jobs whose deadline has passed.
-- ARGV: most jobs a call
-- Returns their ids.
local expired = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', now_ms(), 'LIMIT', 0, ARGV[1])) do
  expire_late(id)
  expired[#expired + 1] = id
end
return expired
