-- Give a slot back.
-- args: key_id, slot
redis.call('ZREM', SLOTS .. args.key_id, args.slot)
