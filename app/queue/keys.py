"""Every key and channel the service uses in Redis.

All carry the hash tag `{nag}`, so that on a Cluster each atomic script finds its keys on one node.
The scripts read these names from `lua_header`; no name is written anywhere else.
"""

from __future__ import annotations

import hashlib

__all__ = [
    "DONE",
    "LEASES",
    "NOTICED",
    "QUEUED",
    "REVOKED",
    "events",
    "idempotency",
    "job",
    "lua_header",
    "owned",
    "queue",
]

JOB = "{nag}:job:"  # + job id: hash, the job's fields; expires after it has ended
IDEMPOTENCY = "{nag}:idempotency:"  # + digest of the tenant and its key: hash, job and fingerprint; ends with its job
EVENTS = "{nag}:events:"  # + job id: stream, what became of it; ends with it. Channel: each entry
OWNED = "{nag}:owned:"  # + tenant: sorted set, the ids of its jobs, by the order they came in
KEPT = "{nag}:kept"  # sorted set: JSON [tenant, id] of jobs that have ended, by the millisecond they are forgotten
SEQUENCE = "{nag}:sequence"  # counter: the order jobs came in
MODELS = "{nag}:models"  # set: every model that ever had a queue

QUEUE = "{nag}:queue:"  # + model: sorted set, the ids waiting, by the order they came in
LANE = "{nag}:lane:"  # + JSON [model, tenant, rank, batch key]: sorted set, the part of the queue that is alike
LANES = "{nag}:lanes:"  # + JSON [model, tenant, rank]: sorted set, batch keys, by the order of their lane's first
TENANTS = "{nag}:tenants:"  # + model: sorted set, tenants with waiting jobs, by when they were last served
SERVED = "{nag}:served"  # counter: batches claimed
TURNS = "{nag}:turns"  # hash: model to the planner's memory, as JSON

LEASES = "{nag}:leases"  # sorted set: ids in progress, by the millisecond their lease ends
DEADLINES = "{nag}:deadlines"  # sorted set: ids not ended, by the millisecond they expire
DEAD = "{nag}:dead"  # sorted set: ids given up as lost, by the millisecond they were

QUEUED_WORK = "{nag}:work:queued"  # hash: model to the units of work waiting
HELD_WORK = "{nag}:work:held"  # hash: model to the units of work in progress
RATE = "{nag}:rate:"  # + model: hash, work done lately and the milliseconds it took, both fading
ERRORS = "{nag}:errors"  # list: the last jobs that ended with an error, JSON [ms, job, model, code], newest first
COUNTS = "{nag}:counts"  # hash: JSON [metric, label values…, bucket of a histogram] to how often
FINISHED = "{nag}:finished"  # hash: worker to the millisecond of its last result

RATES = "{nag}:rates"  # + the library's own: list, when each request of a key's last minute came
SLOTS = "{nag}:slots:"  # + key id: sorted set, requests under way, by the millisecond they are given up
PENDING = "{nag}:pending:"  # + key id: set, ids of its jobs that have not ended

WORKERS = "{nag}:workers"  # sorted set: worker names, by the millisecond their announcement ends
WARM = "{nag}:warm"  # hash: worker name to JSON, the models it has warm and those it serves

WEBHOOKS = "{nag}:webhooks"  # sorted set: `<job id> <event> <event id>` to be told, by the millisecond it is due
WEBHOOK_TRIES = "{nag}:webhooks:tries"  # hash: how often each of those was tried

DONE = "{nag}:done"  # channel: the id of each job that ends
QUEUED = "{nag}:queued"  # channel: the model of each job that begins to wait
REVOKED = "{nag}:revoked"  # channel: the id of each job taken from its worker
NOTICED = "{nag}:noticed"  # channel: `due`, when a webhook was put on the schedule


def job(job_id: str) -> str:
    return JOB + job_id


def events(job_id: str) -> str:
    return EVENTS + job_id


def owned(tenant: str) -> str:
    return OWNED + tenant


def queue(model: str) -> str:
    return QUEUE + model


def idempotency(tenant: str, caller_key: str) -> str:
    """A digest, since the caller chooses the key's length and bytes."""
    return IDEMPOTENCY + hashlib.sha256(f"{tenant}\n{caller_key}".encode()).hexdigest()


def lua_header() -> str:
    """The names above as Lua locals, put before each script."""
    return "\n".join(f"local {name} = '{value}'" for name, value in sorted(globals().items()) if name.isupper())
