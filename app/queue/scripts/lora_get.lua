-- ARGV: id that jobs name it by
-- Returns the record, or nothing.
return redis.call('HGET', LORA .. ARGV[1], 'record')
