"""From an uploaded file to a registered LoRA: checked, stored, and only then named."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from pathlib import PurePosixPath
from typing import BinaryIO

from pydantic import ValidationError
from starlette.datastructures import UploadFile

from app.api.model_selection import unknown_model
from app.api.requests.lora import LoraBody
from app.api.service import Service
from app.artifacts import lora_name
from app.catalog import LORA_ID, Catalog, Model, Range, UploadedLora
from app.errors import Conflict, InvalidParameter
from app.loras import LoraFacts, LoraFileError, check_lora, find_structure

__all__ = ["register_lora", "remove_file"]

VERSION_BYTES = 8
SUFFIX = ".safetensors"


async def register_lora(body: LoraBody, upload: UploadFile, service: Service) -> UploadedLora:
    """Raises InvalidParameter, Conflict for an id that is taken or a limit, Forbidden."""
    tenant = service.tenant
    if body.shared:
        service.require_admin("to register a LoRA that all tenants share")
    name = _id(body, upload)
    base = _base(body, service.catalog)
    scale = _scale(body)
    if name in service.catalog.loras:
        raise Conflict(f"id: the catalog has a LoRA {name!r}", param="id", code="lora_exists")
    facts, sha256, size_bytes = await asyncio.to_thread(_examined, upload.file, base)
    try:
        lora = UploadedLora(
            id=name,
            base=base.id,
            description=body.description or "",
            licence=body.licence,
            trigger_words=tuple(filter(None, map(str.strip, (body.trigger_words or "").split(",")))),
            scale=scale,
            version=secrets.token_hex(VERSION_BYTES),
            tenant=None if body.shared else tenant,
            sha256=sha256,
            size_bytes=size_bytes,
            created_at=time.time(),
            layers=facts.layers,
            rank=facts.rank,
            parts=facts.parts,
        )
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_input=False)[0]
        field = str(error["loc"][0]) if error["loc"] else "scale"
        raise InvalidParameter(f"{field}: {error['msg']}", param=field) from exc
    await _store(lora, upload.file, service)
    return lora


def _id(body: LoraBody, upload: UploadFile) -> str:
    if body.id is not None:
        if re.fullmatch(LORA_ID, body.id) is None:
            raise InvalidParameter(
                "id: must be 1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit", param="id"
            )
        return body.id
    name = upload.filename or ""
    stem = PurePosixPath(name).stem
    if name != f"{stem}{SUFFIX}" or re.fullmatch(LORA_ID, stem) is None:
        raise InvalidParameter(
            f"id: must be given unless the file is called <id>{SUFFIX}; an id has letters, digits, '.', '_' and '-'",
            param="id",
        )
    return stem


def _base(body: LoraBody, catalog: Catalog) -> Model:
    base = catalog.models.get(body.base)
    if base is None:
        raise unknown_model(f"no model {body.base!r}", catalog, "base")
    if not base.request_loras:
        raise InvalidParameter(f"base: model {base.id} takes no LoRAs", param="base")
    return base


def _scale(body: LoraBody) -> Range[float]:
    usual = UploadedLora.model_fields["scale"].default
    numbers = {
        "default": usual.default if body.scale_default is None else body.scale_default,
        "min": usual.min if body.scale_min is None else body.scale_min,
        "max": usual.max if body.scale_max is None else body.scale_max,
    }
    try:
        return Range[float](**numbers)
    except ValidationError as exc:
        message = exc.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidParameter(f"scale_default: {message}", param="scale_default") from exc


def _examined(file: BinaryIO, base: Model) -> tuple[LoraFacts, str, int]:
    """Returns what the file holds, its digest and its size."""
    try:
        facts = check_lora(file, find_structure(base))
    except LoraFileError as exc:
        raise InvalidParameter(f"file: {exc}", param="file", code="invalid_lora") from exc
    file.seek(0)
    digest, size_bytes = hashlib.sha256(), 0
    while chunk := file.read(2**20):
        digest.update(chunk)
        size_bytes += len(chunk)
    return facts, digest.hexdigest(), size_bytes


async def remove_file(lora: UploadedLora, service: Service) -> None:
    """Removes the file of a LoRA that is not registered."""
    await service.artifacts.delete(lora_name(lora.version))
    await service.queue.loras.forget_file(lora.version)


async def _store(lora: UploadedLora, file: BinaryIO, service: Service) -> None:
    """Stores the file, and then its record: what is registered can be used.

    Of what is not registered nothing stays: if this process ends in between, a worker removes the file.
    """
    settings, is_added = service.settings, False
    await service.queue.loras.note_file(lora.version)
    try:
        await service.artifacts.save(lora_name(lora.version), file)
        await service.queue.loras.add(lora, most=settings.loras_per_tenant, most_bytes=settings.lora_bytes_per_tenant)
        is_added = True
    finally:
        if not is_added:
            await remove_file(lora, service)
