"""`nag-server dead list`, `dead replay` and `dead drop`: what an operator does about jobs that workers died of."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from redis.exceptions import RedisError

from app.cli.client import ClientError
from app.queue.queue import Queue
from app.settings import Settings

__all__ = ["dead"]


def dead(arguments: argparse.Namespace, settings: Settings) -> int:
    """Runs the action; returns 1 if an id is none of a dead letter. Raises ClientError without a queue."""
    try:
        return asyncio.run(_dead(arguments, settings))
    except RedisError as exc:
        raise ClientError(f"the queue cannot be reached: {exc}") from exc


async def _dead(arguments: argparse.Namespace, settings: Settings) -> int:
    queue = Queue.connect(settings)
    try:
        if arguments.action == "list":
            await _list(queue)
            return 0
        act = queue.dead.replay if arguments.action == "replay" else queue.dead.drop
        changed = await act(arguments.ids)
    finally:
        await queue.close()
    for job_id in changed:
        print(job_id)
    missing = [job_id for job_id in arguments.ids if job_id not in changed]
    for job_id in missing:
        print(f"nag-server: {job_id} is no dead letter", file=sys.stderr)
    return 1 if missing else 0


async def _list(queue: Queue) -> None:
    """Prints a line per job, the id first and tabs between the values, for other programs to read."""
    for job in await queue.dead.list():
        error = "" if job.error is None else f"{job.error.code}: {job.error.message}"
        accepted, given_up = _clock(job.created_at), _clock(job.completed_at or 0)
        print(job.id, job.request.model, f"accepted {accepted}", f"given up {given_up}", error, sep="\t")


def _clock(unix_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))
