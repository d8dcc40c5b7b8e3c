"""The names of stored files. Nothing else ever becomes a path or a key in a bucket."""

from __future__ import annotations

import re
import secrets

from app.formats import MEDIA_TYPES
from app.jobs import InputRole

__all__ = [
    "artifact_name", "check_name", "input_name", "is_input", "is_name", "is_upload", "lora_name", "media_type",
    "upload_name",
]  # fmt: skip

#: The format of an uploaded file, whatever its content.
UPLOADED = "bin"
TYPES = MEDIA_TYPES | {UPLOADED: "application/octet-stream"}
_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,80}}-[0-9]{{1,3}}-[0-9a-f]{{8}}\.({'|'.join(TYPES)})")
_INPUT = re.compile(rf".+-({'|'.join(InputRole)})-[0-9]{{1,3}}-[0-9a-f]{{8}}\.(png|mp4)")

#: An uploaded LoRA is no artifact: it has no links, and is kept until it is deleted.
_LORA = re.compile(r"lora_[0-9a-f]{16}\.safetensors")


def artifact_name(job_id: str, index: int, output_format: str) -> str:
    """Returns a new name at each call, `<job id>-<index>-<8 hex digits>.<format>`.

    So two workers that make the same job's file, one of them after it lost its lease, never write the same name.
    """
    return f"{job_id}-{index}-{secrets.token_hex(4)}.{output_format}"


def input_name(job_id: str, role: InputRole, index: int) -> str:
    """Returns a name for the input file of this number of a job."""
    return artifact_name(f"{job_id}-{role}", index, "mp4" if role is InputRole.VIDEO else "png")


def upload_name(file_id: str) -> str:
    """Returns a name for an uploaded file."""
    return artifact_name(file_id, 0, UPLOADED)


def is_upload(name: str) -> bool:
    return name.endswith(f".{UPLOADED}")


def lora_name(version: str) -> str:
    """Returns the name of an uploaded LoRA's file."""
    return f"lora_{version}.safetensors"


def is_input(name: str) -> bool:
    return _INPUT.fullmatch(name) is not None


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def check_name(name: str) -> str:
    """Returns the name. Raises ValueError if it has neither the form of `artifact_name` nor that of `lora_name`."""
    if not is_name(name) and _LORA.fullmatch(name) is None:
        raise ValueError(f"not an artifact's name: {name!r}")
    return name


def media_type(name: str) -> str:
    return MEDIA_TYPES.get(name.rpartition(".")[2], "application/octet-stream")
