"""Every key and channel the service uses in Redis.

All carry the hash tag `{nag}`, so that on a Cluster each atomic script finds its keys on one node.
The scripts read these names from `lua_header`; no name is written anywhere else.
"""

from __future__ import annotations

import hashlib

__all__ = ["DEAD", "DONE", "LEASES", "MODELS", "QUEUED", "idempotency", "job", "lua_header", "queue"]

JOB = "{nag}:job:"  # + job id: hash, the job's fields; expires after it has ended
QUEUE = "{nag}:queue:"  # + model: sorted set, the ids waiting, by the order they came in
LANE = "{nag}:lane:"  # + model:batch key: sorted set, the part of the queue that may share a batch
IDEMPOTENCY = "{nag}:idempotency:"  # + digest of the caller's key: hash, job and fingerprint; ends with its job
SEQUENCE = "{nag}:sequence"  # counter: the order jobs came in
MODELS = "{nag}:models"  # set: every model that ever had a queue
LEASES = "{nag}:leases"  # sorted set: ids in progress, by the millisecond their lease ends
DEAD = "{nag}:dead"  # list: the last ids given up as lost, newest first
WORKERS = "{nag}:workers"  # sorted set: worker names, by the millisecond their announcement ends
WARM = "{nag}:warm"  # hash: worker name to the JSON list of its warm models
DONE = "{nag}:done"  # channel: the id of each job that ends
QUEUED = "{nag}:queued"  # channel: the model of each job that begins to wait


def job(job_id: str) -> str:
    return JOB + job_id


def queue(model: str) -> str:
    return QUEUE + model


def idempotency(caller_key: str) -> str:
    """A digest, since the caller chooses the key's length and bytes."""
    return IDEMPOTENCY + hashlib.sha256(caller_key.encode()).hexdigest()


def lua_header() -> str:
    """The names above as Lua locals, put before each script."""
    return "\n".join(f"local {name} = '{value}'" for name, value in sorted(globals().items()) if name.isupper())
