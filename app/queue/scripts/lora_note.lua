-- Note that the file of a LoRA may be stored, though the LoRA is not registered.
-- args: version
redis.call('ZADD', LORA_FILES, now_ms(), args.version)
return 1
