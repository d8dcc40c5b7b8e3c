-- The file of a LoRA that is not registered was removed.
-- ARGV: its version
redis.call('ZREM', LORA_FILES, ARGV[1])
return 1
