"""The names of artifacts. Nothing else ever becomes a path or a key in a bucket."""

from __future__ import annotations

import re
import secrets

from app.formats import MEDIA_TYPES
from app.jobs import InputRole

__all__ = [
    "artifact_name", "checked", "input_name", "is_input", "is_name", "is_upload", "lora_name", "media_type",
    "upload_name",
]  # fmt: skip

#: The format of an uploaded file, whatever is in it.
UPLOADED = "bin"
TYPES = MEDIA_TYPES | {UPLOADED: "application/octet-stream"}
_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,80}}-[0-9]{{1,3}}-[0-9a-f]{{8}}\.({'|'.join(TYPES)})")
_INPUT = re.compile(rf".+-({'|'.join(InputRole)})-[0-9]{{1,3}}-[0-9a-f]{{8}}\.(png|mp4)")

#: Of an uploaded LoRA. It is no artifact: it has no links, and is kept until it is deleted.
_LORA = re.compile(r"lora_[0-9a-f]{16}\.safetensors")


def artifact_name(job_id: str, index: int, output_format: str) -> str:
    """A name of its own each time, `<job id>-<index>-<8 hex digits>.<format>`.

    Two workers that make the same job's file, one of them having lost its lease, so never write the same name.
    """
    return f"{job_id}-{index}-{secrets.token_hex(4)}.{output_format}"


def input_name(job_id: str, role: InputRole, index: int) -> str:
    """The name of the file of this number that a job starts from."""
    return artifact_name(f"{job_id}-{role}", index, "mp4" if role is InputRole.VIDEO else "png")


def upload_name(file_id: str) -> str:
    """The name of an uploaded file."""
    return artifact_name(file_id, 0, UPLOADED)


def is_upload(name: str) -> bool:
    return name.endswith(f".{UPLOADED}")


def lora_name(version: str) -> str:
    """Of an uploaded LoRA's file."""
    return f"lora_{version}.safetensors"


def is_input(name: str) -> bool:
    return _INPUT.fullmatch(name) is not None


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def checked(name: str) -> str:
    """The name. Raises ValueError where it is not of `artifact_name`'s form, nor of `lora_name`'s."""
    if not is_name(name) and _LORA.fullmatch(name) is None:
        raise ValueError(f"not an artifact's name: {name!r}")
    return name


def media_type(name: str) -> str:
    return MEDIA_TYPES.get(name.rpartition(".")[2], "application/octet-stream")
