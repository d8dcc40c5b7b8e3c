-- Read the records of a tenant's uploaded files that have not expired, or of one of them.
-- args: tenant, id (optional)
local files, now, records = FILES .. args.tenant, now_ms(), {}
local texts = args.id and { redis.call('HGET', files, args.id) } or redis.call('HVALS', files)
for _, text in ipairs(texts) do
  if text and cjson.decode(text).expires_ms > now then
    records[#records + 1] = text
  end
end
return records
