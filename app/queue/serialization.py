"""A job as its Redis hash: text fields, the nested objects as JSON, times in milliseconds.

A rolling upgrade runs two versions on one Redis, so each reads what the other has written: fields of former versions
under their present names, and results of a later version without the fields that this one does not know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, TypeVar, cast

from app.jobs import (
    AppliedGuidance,
    Artifact,
    EventType,
    Generation,
    Guidance,
    InputFile,
    InputRole,
    Job,
    JobError,
    JobStatus,
    LoraUse,
    Priority,
    Result,
    Timings,
    Webhook,
    with_present_names,
)

__all__ = ["generation_from_json", "job_from_fields", "pairs", "result_from_json", "to_json"]

T = TypeVar("T")


def pairs(flat: Sequence[str]) -> dict[str, str]:
    """Turns Redis' flat answer `[field, value, field, value, …]` into a mapping."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def to_json(value: Any) -> str:
    """Writes a dataclass of app.jobs as compact JSON."""
    return json.dumps(asdict(value), separators=(",", ":"), ensure_ascii=False)


def job_from_fields(fields: Mapping[str, str]) -> Job:
    """Reads the job that the scripts stored in these fields."""
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
        error=JobError(**json.loads(fields["error"])) if "error" in fields else None,
        warnings=tuple(json.loads(fields["warnings"])),
        tenant=fields["tenant"],
        priority=list(Priority)[int(fields["rank"])],
        deadline_at=int(fields["deadline_ms"]) / 1000,
        webhook=_webhook_from_json(fields["webhook"]) if "webhook" in fields else None,
        trace=fields.get("trace", ""),
        is_deleted="deleted" in fields,
    )


def generation_from_json(text: str) -> Generation:
    """Reads a request; one of a later version whose fields are not known here raises TypeError."""
    data = json.loads(text)
    if data["nag"] is not None:
        data["nag"] = Guidance(**with_present_names(data["nag"]))
    data["loras"] = tuple(LoraUse(**lora) for lora in data.get("loras", ()))
    if (edit := data.pop("edit", None)) is not None:  # of a former version, and with it no inputs
        files = [{"role": role, "name": edit[role]} for role in ("image", "mask") if edit.get(role) is not None]
        data |= {"inputs": files, "strength": edit["strength"]}
    inputs = [InputFile(**{**file, "role": InputRole(file["role"])}) for file in data.pop("inputs", ())]
    return Generation(**data, inputs=tuple(inputs))


def result_from_json(text: str) -> Result:
    """Reads a result without the fields that only a later version knows, since this one could not show them."""
    data = json.loads(text)
    return Result(
        artifacts=tuple(_from_known_fields(Artifact, artifact) for artifact in data["artifacts"]),
        nag=_from_known_fields(AppliedGuidance, with_present_names(data["nag"])),
        batch_size=data["batch_size"],
        timings=_from_known_fields(Timings, data["timings"]),
        warnings=tuple(data["warnings"]),
    )


def _webhook_from_json(text: str) -> Webhook:
    data = json.loads(text)
    return Webhook(data["url"], tuple(map(EventType, data["events"])))


def _from_known_fields(kind: type[T], data: dict[str, Any]) -> T:
    names = {field.name for field in fields(cast(Any, kind))}
    return kind(**{name: value for name, value in data.items() if name in names})
