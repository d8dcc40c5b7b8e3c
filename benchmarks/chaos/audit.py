"""What must hold when all is over, read from the clients, from Redis, from its append-only file and from the disk."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.artifacts.naming import is_name
from app.jobs import JobStatus
from app.queue.keys import Keys
from app.queue.serialization import result_from_json
from benchmarks.chaos.clients import ENDS, Clients, RequestOutcome
from benchmarks.chaos.fleet import Fleet

keys = Keys("nag")

__all__ = ["Findings", "audit", "transitions"]

COMPLETED = re.compile(r" job_completed job=(\S+)")
REFUSED = re.compile(r" (?:result|error)_refused job=(\S+)")


@dataclass
class Findings:
    """Every list but the last two should be empty; they hold job ids or file names."""

    lost: list[str] = field(default_factory=list)  # accepted, and unknown or without an end now
    twice: list[str] = field(default_factory=list)  # ended or said to be completed more than once
    doubled: list[str] = field(default_factory=list)  # one key, two jobs; or a job nobody asked for
    changed: list[str] = field(default_factory=list)  # ended otherwise than its client was told
    unreasoned: list[str] = field(default_factory=list)  # failed or expired without saying why
    orphans: list[str] = field(default_factory=list)  # files that no completed job names
    missing: list[str] = field(default_factory=list)  # files that a completed job names and that are not there
    wrong: list[str] = field(default_factory=list)  # results that are not what was asked for
    left: list[str] = field(default_factory=list)  # leases, queues or deadlines that name a job
    refused: list[str] = field(
        default_factory=list
    )  # late results of workers that had lost their lease: as it should be
    leftovers: list[str] = field(
        default_factory=list
    )  # files of workers that were killed between storing them and saying so: nobody can ask for them, they are swept

    @property
    def faults(self) -> dict[str, list[str]]:
        """What should be empty and is not."""
        return {name: found for name, found in vars(self).items() if found and name not in ("refused", "leftovers")}


async def audit(fleet: Fleet, clients: Clients) -> Findings:
    """Called while the service still runs and nothing is asked of it any more."""
    found = Findings()
    for outcome in clients.outcomes:
        found.wrong += [f"{', '.join(outcome.ids)}: {fault}" for fault in outcome.wrong]
        if len(outcome.ids) != 1:
            found.doubled.append(f"{outcome.wish.key}: {len(outcome.ids)} jobs")
        for job_id in outcome.ids:
            await _ended_once(clients, outcome, job_id, found)
    ids = {job_id for outcome in clients.outcomes for job_id in outcome.ids}
    journal = transitions(fleet.settings.data_folder / "valkey")
    said = Counter(_said(fleet, COMPLETED))
    found.twice += [job for job, ends in journal.ended.items() if len(ends) > 1]
    found.twice += [job for job, times in said.items() if times > 1 and job not in found.twice]
    found.doubled += sorted(journal.created - ids)
    found.refused = _said(fleet, REFUSED)
    waiting = [str(name) async for name in fleet.redis.scan_iter(f"{keys.QUEUE}*")]
    for name in (keys.LEASES, keys.DEADLINES, *waiting):
        found.left += map(str, await fleet.redis.zrange(name, 0, -1))
    await _files(fleet, found)
    return found


async def _ended_once(clients: Clients, outcome: RequestOutcome, job_id: str, found: Findings) -> None:
    job = await clients.look(job_id)
    if job is None or job["status"] not in ENDS:
        found.lost.append(job_id)
    elif job["status"] != outcome.status:
        found.changed.append(f"{job_id}: {outcome.status}, then {job['status']}")
    elif job["status"] in (JobStatus.FAILED, JobStatus.EXPIRED) and not (job["error"] or {}).get("message"):
        found.unreasoned.append(job_id)


async def _files(fleet: Fleet, found: Findings) -> None:
    there = {path.name for path in (fleet.settings.data_folder / "artifacts").iterdir()}
    named: set[str] = set()
    async for key in fleet.redis.scan_iter(f"{keys.JOB}*"):
        status, result = await fleet.redis.hmget(key, "status", "result")
        if status == JobStatus.COMPLETED:
            named |= {name for artifact in result_from_json(str(result)).artifacts for name in artifact.names}
    found.missing = sorted(named - there)
    for name in sorted(there - named):
        if not is_name(name):  # of a writer that was killed, and swept likewise
            continue
        key = keys.job(name.partition("-")[0])
        status = str(await fleet.redis.hget(key, "status") or "no such job")
        if int(await fleet.redis.hget(key, "attempts") or 0) > 1:
            found.leftovers.append(name)
        else:
            found.orphans.append(f"{name} ({status})")


def _said(fleet: Fleet, event: re.Pattern[str]) -> list[str]:
    return [match for part in fleet.workers for match in event.findall(part.log.read_text(errors="replace"))]


@dataclass
class Journal:
    """Every job that was ever stored, and each time one of them ended."""

    created: set[str] = field(default_factory=set)
    ended: dict[str, list[str]] = field(default_factory=dict)


def transitions(folder: Path) -> Journal:
    """Reads what happened from the append-only file of a server that has never rewritten it."""
    journal = Journal()
    for path in sorted(folder.glob("appendonlydir/*.incr.aof")):
        for name, key, *rest in (command for command in _commands(path.read_bytes()) if len(command) > 1):
            if name.upper() not in (b"HSET", b"HMSET") or not key.decode().startswith(keys.JOB):
                continue
            fields = dict(zip(rest[::2], rest[1::2], strict=True))
            job_id, status = key.decode().removeprefix(keys.JOB), fields.get(b"status", b"").decode()
            if b"id" in fields:
                journal.created.add(job_id)
            if status in ENDS:
                journal.ended.setdefault(job_id, []).append(status)
    return journal


def _commands(data: bytes) -> Iterator[Sequence[bytes]]:
    """Yields the commands of a RESP stream; one cut off at its end is left out."""
    at = 0
    while (end := data.find(b"\r\n", at)) >= 0:
        if data[at : at + 1] == b"#":  # an annotation
            at = end + 2
            continue
        count, at, words = int(data[at + 1 : end]), end + 2, []
        for _ in range(count):
            end = data.find(b"\r\n", at)
            if end < 0:
                return
            size, at = int(data[at + 1 : end]), end + 2
            words.append(data[at : at + size])
            at += size + 2
        if at > len(data):
            return
        yield words
