-- Bound: the LoRAs of all tenants together and those of one.
-- ARGV: tenant, or '' for those of all tenants alone
-- Returns the records of what it may use.
local records = {}
for _, own in ipairs(ARGV[1] == '' and { LORAS } or { LORAS, LORAS .. ARGV[1] }) do
  for _, use in ipairs(redis.call('HVALS', own)) do
    records[#records + 1] = redis.call('HGET', LORA .. use, 'record') or nil
  end
end
return records
