-- What a model's queue holds, for the planner: of each lane its first jobs.
-- Bound: 32 tenants, those served longest ago; of each and each priority up to 64 lanes over the number of tenants,
-- at least 4, those whose first job is oldest; of all lanes together about 768 jobs, at least 8 of each: never more
-- than 3,072 jobs, and seldom more than 768.
-- ARGV: model
-- Returns JSON: {now_ms, turns or '', jobs: [[id, batch key, tenant, rank, sequence, cost, work, attempts, queued_ms]…]}.
local model = ARGV[1]
local lanes = {}
local tenants = redis.call('ZRANGE', TENANTS .. model, 0, 31)
local lanes_each = math.max(4, math.floor(64 / math.max(1, #tenants)))
for _, tenant in ipairs(tenants) do
  for _, rank in ipairs({ '0', '1', '2' }) do
    for _, batch_key in ipairs(redis.call('ZRANGE', lanes_of(model, tenant, rank), 0, lanes_each - 1)) do
      lanes[#lanes + 1] = LANE .. cjson.encode({ model, tenant, rank, batch_key })
    end
  end
end

local jobs = {}
local jobs_each = math.max(8, math.floor(768 / math.max(1, #lanes)))
for _, lane in ipairs(lanes) do
  for _, id in ipairs(redis.call('ZRANGE', lane, 0, jobs_each - 1)) do
    jobs[#jobs + 1] = redis.call('HMGET', JOB .. id,
      'id', 'batch_key', 'tenant', 'rank', 'sequence', 'cost', 'work', 'attempts', 'queued_ms')
  end
end
local turns = redis.call('HGET', TURNS, model) or ''
return cjson.encode({ now_ms = string.format('%d', now_ms()), turns = turns, jobs = jobs })
