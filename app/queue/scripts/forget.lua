-- Remove jobs that are no longer kept from their tenants' lists.
-- args: most (jobs per call)
-- Returns how many.
local ended = redis.call('ZRANGEBYSCORE', KEPT, '-inf', now_ms(), 'LIMIT', 0, args.most)
for _, entry in ipairs(ended) do
  local of = cjson.decode(entry)
  redis.call('ZREM', OWNED .. of[1], of[2])
  redis.call('ZREM', KEPT, entry)
end
return #ended
