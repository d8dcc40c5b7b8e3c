"""Names every key and channel that the service uses in Redis.

All names of a namespace have one hash tag, `{nag}` by default, so that on a Cluster each script finds its keys on
one node. The scripts read these names from `lua_header`; no name is written anywhere else.
"""

from __future__ import annotations

import hashlib

__all__ = ["Keys"]


class Keys:
    """The names of one namespace. Services that share a Redis have different namespaces and share no key."""

    def __init__(self, namespace: str) -> None:
        tag = f"{{{namespace}}}:"
        self.JOB = tag + "job:"  # + job id: hash, the job's fields; expires after it has ended
        self.IDEMPOTENCY = tag + "idempotency:"  # + digest of tenant and key: hash, job, fingerprint; ends with its job
        self.ORPHANS = tag + "orphans:"  # + digest of tenant and request: list, `<job id> <token>`: jobs without client
        self.EVENTS = tag + "events:"  # + job id: stream of its events; ends with it. Channel: each entry
        self.OWNED = tag + "owned:"  # + tenant: sorted set, the ids of its jobs, by the order they came in
        self.KEPT = tag + "kept"  # sorted set: JSON [tenant, id] of ended jobs, by the millisecond they are forgotten
        self.SEQUENCE = tag + "sequence"  # counter: the order jobs came in
        self.MODELS = tag + "models"  # set: every model that ever had a queue

        self.QUEUE = tag + "queue:"  # + model: sorted set, the ids waiting, by the order they came in
        self.LANE = tag + "lane:"  # + JSON [model, tenant, rank]: sorted set, ids waiting, by the order they came in
        self.FORMER_LANES = tag + "lanes:"  # of older versions, + JSON [model, tenant, rank]: sorted set, batch keys
        self.TENANTS = tag + "tenants:"  # + model: sorted set, tenants with waiting jobs, by when they were last served
        self.SERVED = tag + "served"  # counter: claims
        self.TURNS = tag + "turns"  # hash: model to the planner's memory, as JSON

        self.LEASES = tag + "leases"  # sorted set: ids in progress, by the millisecond their lease ends
        self.DEADLINES = tag + "deadlines"  # sorted set: ids not ended, by the millisecond they expire
        self.DEAD = tag + "dead"  # sorted set: ids given up as lost, by the millisecond they were

        self.QUEUED_WORK = tag + "work:queued"  # hash: model to the units of work waiting
        self.HELD_WORK = tag + "work:held"  # hash: model to the units of work in progress
        self.RATE = tag + "rate:"  # + model: hash, work done lately and the milliseconds it took, both fading
        self.ERRORS = tag + "errors"  # list: the last jobs that failed, JSON [ms, job, model, code], newest first
        self.COUNTS = tag + "counts"  # hash: JSON [metric, label values…, bucket of a histogram] to how often
        self.FINISHED = tag + "finished"  # hash: worker to the millisecond of its last result

        self.RATES = tag + "rates"  # + the library's own: list, when each request of a key's last minute came
        self.SLOTS = tag + "slots:"  # + key id: sorted set, requests under way, by the millisecond they are given up
        self.PENDING = tag + "pending:"  # + key id: set, ids of its jobs that have not ended

        self.LORA = tag + "lora:"  # + id that jobs name it by: hash, record and bytes of an uploaded LoRA
        self.LORAS = tag + "loras:"  # + tenant, or nothing for all tenants: hash, id to the id that jobs name it by
        self.LORA_JOBS = tag + "lora_jobs:"  # + that id: set, ids of the jobs that need it and have not ended
        self.LORA_FILES = tag + "lora_files"  # sorted set: versions that are not registered, but whose files may be
        # stored, by the millisecond this was noted
        self.FILES = tag + "files:"  # + tenant: hash, id of an uploaded file to its record as JSON; ends with the last

        self.SDAPI_JOBS = tag + "sdapi_jobs:"  # + tenant: sorted set, jobs of /sdapi/v1, by when each is dropped
        self.SDAPI_MODELS = tag + "sdapi_models"  # hash: tenant to the model that it has chosen by /sdapi/v1/options

        self.WORKERS = tag + "workers"  # sorted set: worker names, by the millisecond their announcement ends
        self.WARM = tag + "warm"  # hash: worker name to JSON, the models it has warm and those it serves

        self.WEBHOOKS = tag + "webhooks_of:"  # + tenant: sorted set, `<job id> <event> <event id>`, by when it is due
        self.WEBHOOKS_DUE = tag + "webhooks_due"  # sorted set: tenants, by the millisecond their first webhook is due
        self.WEBHOOK_TRIES = tag + "webhook_tries"  # hash: how often each of those was tried

        self.DONE = tag + "done"  # channel: the id of each job that ends
        self.QUEUED = tag + "queued"  # channel: the model of each job that begins to wait
        self.REVOKED = tag + "revoked"  # channel: the id of each job taken from its worker
        self.NOTICED = tag + "noticed"  # channel: `due`, when a webhook was put on the schedule

    def job(self, job_id: str) -> str:
        return self.JOB + job_id

    def events(self, job_id: str) -> str:
        return self.EVENTS + job_id

    def jobs_of(self, tenant: str) -> str:
        return self.OWNED + tenant

    def queue(self, model: str) -> str:
        return self.QUEUE + model

    def idempotency(self, tenant: str, caller_key: str) -> str:
        """Names an idempotency key by a digest, since the caller chooses its length and bytes."""
        return self.IDEMPOTENCY + hashlib.sha256(f"{tenant}\n{caller_key}".encode()).hexdigest()

    def orphans(self, tenant: str, fingerprint: str) -> str:
        """Names the list of orphaned jobs of a tenant's equal requests, by a digest."""
        return self.ORPHANS + hashlib.sha256(f"{tenant}\n{fingerprint}".encode()).hexdigest()

    def lua_header(self) -> str:
        """Returns the names above as Lua locals, which precede each script."""
        return "\n".join(f"local {name} = '{value}'" for name, value in vars(self).items())
