-- Read the record of a LoRA.
-- args: use_id (by which jobs name it)
-- Returns the record, or nothing.
return redis.call('HGET', LORA .. args.use_id, 'record')
