-- ARGV: milliseconds, most versions a call
-- Returns the versions of LoRAs that have not been registered for so long, but whose files may be stored.
return redis.call('ZRANGEBYSCORE', LORA_FILES, '-inf', now_ms() - ARGV[1], 'LIMIT', 0, ARGV[2])
