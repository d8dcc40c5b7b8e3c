-- Note an uploaded file, unless its tenant has too many or too much.
-- ARGV: tenant, file id, JSON of the record without its times, bytes, milliseconds it is kept, most files, most bytes
-- Returns the record with its times, or "full" where there is no room.
local files, now = FILES .. ARGV[1], now_ms()
local count, bytes = 0, 0
local records = redis.call('HGETALL', files)
for i = 1, #records, 2 do
  local record = cjson.decode(records[i + 1])
  if record.expires_ms <= now then
    redis.call('HDEL', files, records[i])
  else
    count, bytes = count + 1, bytes + record.bytes
  end
end
if count >= tonumber(ARGV[6]) or bytes + ARGV[4] > tonumber(ARGV[7]) then
  return 'full'
end
local record = cjson.decode(ARGV[3])
record.created_ms, record.expires_ms = now, now + ARGV[5]
local text = cjson.encode(record)
redis.call('HSET', files, ARGV[2], text)
if redis.call('PTTL', files) < tonumber(ARGV[5]) then
  redis.call('PEXPIRE', files, ARGV[5])
end
return text
