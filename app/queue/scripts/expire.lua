-- End the jobs whose deadline has passed.
-- args: most (jobs per call)
-- Returns their ids.
local expired = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', now_ms(), 'LIMIT', 0, args.most)) do
  if expire_late(id) then
    expired[#expired + 1] = id
  end
end
return expired
