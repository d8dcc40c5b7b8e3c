-- List the LoRAs that have not been registered for so long, but whose files may be stored.
-- args: older_than_ms, most (per call)
-- Returns their versions.
return redis.call('ZRANGEBYSCORE', LORA_FILES, '-inf', now_ms() - args.older_than_ms, 'LIMIT', 0, args.most)
