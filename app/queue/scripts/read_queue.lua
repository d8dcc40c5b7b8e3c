-- Read the first jobs of each lane of a model's queue, for the planner.
-- Bound: 16 tenants, those served longest ago, with a lane for each priority; of each lane 256 jobs over the number of
-- lanes. So never more than 48 lanes and 256 jobs.
-- args: models (the first with waiting jobs is shown, otherwise the last)
-- Returns JSON: {model, now_ms, turns or '', lanes: [[tenant, rank, 'id sequence cost work attempts queued_ms'…]…]}.
local model
for _, name in ipairs(args.models) do
  model = name
  if redis.call('EXISTS', TENANTS .. model) == 1 then
    break
  end
end

local lanes = {}
for _, tenant in ipairs(redis.call('ZRANGE', TENANTS .. model, 0, 15)) do
  for rank = 0, 2 do
    local name = string.format('%d', rank)
    if redis.call('EXISTS', lane_of(model, tenant, name)) == 1 then
      lanes[#lanes + 1] = { tenant, name }
    end
  end
end

local most = math.floor(256 / math.max(1, #lanes))
for _, lane in ipairs(lanes) do
  local ids = redis.call('ZRANGE', lane_of(model, lane[1], lane[2]), 0, most - 1, 'WITHSCORES')
  for i = 1, #ids, 2 do
    local job = redis.call('HMGET', JOB .. ids[i], 'cost', 'work', 'attempts', 'queued_ms', 'status')
    if job[5] == 'queued' then
      lane[#lane + 1] = table.concat({ ids[i], ids[i + 1], job[1], job[2], job[3], job[4] }, ' ')
    else
      leave_lane(model, lane[1], lane[2], ids[i])
      if not job[5] then
        remove_lost_job(ids[i])
      end
    end
  end
end
local turns = redis.call('HGET', TURNS, model) or ''
return cjson.encode({ model = model, now_ms = string.format('%d', now_ms()), turns = turns, lanes = lanes })
