-- The records of a tenant's uploaded files that have not expired, or of one of them.
-- ARGV: tenant, file id or ""
local files, now, found = FILES .. ARGV[1], now_ms(), {}
local texts = ARGV[2] == '' and redis.call('HVALS', files) or { redis.call('HGET', files, ARGV[2]) }
for _, text in ipairs(texts) do
  if text and cjson.decode(text).expires_ms > now then
    found[#found + 1] = text
  end
end
return found
