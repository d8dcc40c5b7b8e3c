"""A job as its Redis hash: text fields, the nested nouns as JSON, times in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from app.jobs import (
    Job,
    JobStatus,
    Priority,
    error_from_json,
    generation_from_json,
    result_from_json,
    webhook_from_json,
)

__all__ = ["job_from_fields", "pairs"]


def pairs(flat: Sequence[str]) -> dict[str, str]:
    """Redis' flat answer `[field, value, field, value, …]` as a mapping."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def job_from_fields(fields: Mapping[str, str]) -> Job:
    """The job that the scripts stored in these fields."""
    return Job(
        id=fields["id"],
        request=generation_from_json(fields["request"]),
        status=JobStatus(fields["status"]),
        created_at=int(fields["created_ms"]) / 1000,
        started_at=int(fields["started_ms"]) / 1000 if "started_ms" in fields else None,
        completed_at=int(fields["completed_ms"]) / 1000 if "completed_ms" in fields else None,
        attempts=int(fields["attempts"]),
        worker=fields.get("worker"),
        step=int(fields["step"]),
        result=result_from_json(fields["result"]) if "result" in fields else None,
        error=error_from_json(fields["error"]) if "error" in fields else None,
        warnings=tuple(json.loads(fields["warnings"])),
        tenant=fields["tenant"],
        priority=list(Priority)[int(fields["rank"])],
        deadline_at=int(fields["deadline_ms"]) / 1000,
        webhook=webhook_from_json(fields["webhook"]) if "webhook" in fields else None,
        trace=fields.get("trace", ""),
    )
