"""Lets time pass for a queue without waiting: all times that it has stored are moved back."""

from __future__ import annotations

from app.queue.queue import Queue

__all__ = ["pass_time"]

SCRIPT = """
for _, name in ipairs({ LEASES, DEADLINES, DEAD, KEPT, WORKERS, LORA_FILES }) do
  for _, member in ipairs(redis.call('ZRANGE', name, 0, -1)) do
    redis.call('ZINCRBY', name, -ARGV[1], member)
  end
end
for _, worker in ipairs(redis.call('HKEYS', FINISHED)) do
  redis.call('HINCRBY', FINISHED, worker, -ARGV[1])
end
for _, key in ipairs(redis.call('KEYS', JOB .. '*')) do
  for _, field in ipairs({ 'created_ms', 'queued_ms', 'started_ms', 'completed_ms', 'noticed_ms', 'deadline_ms' }) do
    if redis.call('HEXISTS', key, field) == 1 then
      redis.call('HINCRBY', key, field, -ARGV[1])
    end
  end
end
for _, key in ipairs(redis.call('KEYS', FILES .. '*')) do
  local records = redis.call('HGETALL', key)
  for i = 1, #records, 2 do
    local record = cjson.decode(records[i + 1])
    record.created_ms, record.expires_ms = record.created_ms - ARGV[1], record.expires_ms - ARGV[1]
    redis.call('HSET', key, records[i], cjson.encode(record))
  end
end
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', key)
  if left > 0 then
    redis.call('PEXPIRE', key, left - ARGV[1])  -- removes it at once if nothing is left
  end
end
"""


async def pass_time(queue: Queue, seconds: float) -> None:
    """Makes all leases, deadlines and expiries end so much earlier, and all that has begun so much longer ago."""
    await queue._redis.eval(f"{queue.keys.lua_header()}\n{SCRIPT}", 0, round(seconds * 1000))
