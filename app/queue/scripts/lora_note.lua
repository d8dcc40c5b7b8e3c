-- Note that the file of a LoRA may be stored, though the LoRA is not registered.
-- ARGV: its version
redis.call('ZADD', LORA_FILES, now_ms(), ARGV[1])
return 1
