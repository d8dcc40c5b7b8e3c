-- Release a slot.
-- args: key_id, slot
redis.call('ZREM', SLOTS .. args.key_id, args.slot)
