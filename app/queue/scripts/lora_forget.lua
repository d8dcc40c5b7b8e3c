-- Remove the note of a LoRA's file that was removed, or was never stored.
-- args: version
redis.call('ZREM', LORA_FILES, args.version)
return 1
