-- Register an uploaded file, unless its tenant has too many files or bytes.
-- args: tenant, record (an object without its times), ttl_ms, most (files), most_bytes
-- Returns the record with its times, or "full" where there is no room.
local files, now = FILES .. args.tenant, now_ms()
local count, bytes = 0, 0
local records = redis.call('HGETALL', files)
for i = 1, #records, 2 do
  local other = cjson.decode(records[i + 1])
  if other.expires_ms <= now then
    redis.call('HDEL', files, records[i])
  else
    count, bytes = count + 1, bytes + other.bytes
  end
end
local record = args.record
if count >= args.most or bytes + record.bytes > args.most_bytes then
  return 'full'
end
record.created_ms, record.expires_ms = now, now + args.ttl_ms
local text = cjson.encode(record)
redis.call('HSET', files, record.id, text)
if redis.call('PTTL', files) < args.ttl_ms then
  redis.call('PEXPIRE', files, args.ttl_ms)
end
return text
