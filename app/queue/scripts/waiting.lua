-- What a model's queue holds, for the planner: of each lane its first jobs.
-- Bound: 16 tenants, those served longest ago; of each 48 lanes over the number of tenants, but one a priority, those
-- whose first job is oldest; of each lane 256 jobs over the number of lanes. So never more than 48 lanes and 256 jobs.
-- ARGV: model
-- Returns JSON: {now_ms, turns or '', lanes: [[tenant, rank, batch key, 'id sequence cost work attempts queued_ms'…]…]}.
local model = ARGV[1]
local lanes = {}
local tenants = redis.call('ZRANGE', TENANTS .. model, 0, 15)
for _, tenant in ipairs(tenants) do
  local room = math.floor(48 / #tenants)
  for rank = 0, 2 do
    local name = string.format('%d', rank)
    local most = room - (2 - rank) -- the lower priorities keep a lane each
    local batch_keys = redis.call('ZRANGE', lanes_of(model, tenant, name), 0, most - 1)
    room = room - #batch_keys
    for _, batch_key in ipairs(batch_keys) do
      lanes[#lanes + 1] = { tenant, name, batch_key }
    end
  end
end

local most = math.floor(256 / math.max(1, #lanes))
for _, lane in ipairs(lanes) do
  local key = LANE .. cjson.encode({ model, lane[1], lane[2], lane[3] })
  local ids = redis.call('ZRANGE', key, 0, most - 1, 'WITHSCORES')
  for i = 1, #ids, 2 do
    local job = redis.call('HMGET', JOB .. ids[i], 'cost', 'work', 'attempts', 'queued_ms')
    if job[1] then
      lane[#lane + 1] = table.concat({ ids[i], ids[i + 1], job[1], job[2], job[3], job[4] }, ' ')
    else
      redis.call('ZREM', key, ids[i])
      note_first(model, lane[1], lane[2], lane[3], key)
      strike_off(ids[i])
    end
  end
end
local turns = redis.call('HGET', TURNS, model) or ''
return cjson.encode({ now_ms = string.format('%d', now_ms()), turns = turns, lanes = lanes })
