-- List the LoRAs that a tenant may use.
-- Bound: the LoRAs of all tenants together and those of one.
-- args: tenant ('': those of all tenants alone)
-- Returns their records.
local records = {}
for _, own in ipairs(args.tenant == '' and { LORAS } or { LORAS, LORAS .. args.tenant }) do
  for _, use in ipairs(redis.call('HVALS', own)) do
    records[#records + 1] = redis.call('HGET', LORA .. use, 'record') or nil
  end
end
return records
