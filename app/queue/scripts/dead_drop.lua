-- Remove jobs from the dead letters; from now on they are kept as any job that has ended.
-- Bound: the ids given.
-- args: ids
-- Returns the ids that were dead letters.
local dropped = {}
for _, id in ipairs(args.ids) do
  if redis.call('ZREM', DEAD, id) == 1 then
    keep(id, false)
    dropped[#dropped + 1] = id
  end
end
return dropped
