"""OpenAI's files: uploaded once, named by their id in any number of requests, gone at a known time."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import uuid4

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile

from app.api.inputs.image_kinds import READABLE, SIGNATURE_BYTES, VIDEO_KINDS, identify
from app.api.requests.forms import UploadRoute, take_upload
from app.api.responses.download import file_response
from app.api.responses.file import FileDeletedView, FilesView, FileView, file_view
from app.api.service import Here, Service
from app.artifacts import upload_name
from app.errors import InvalidParameter
from app.queue.uploads import UploadedFile

router = APIRouter(tags=["files"])
forms = APIRouter(tags=["files"], route_class=UploadRoute)

PATH = "/v1/files"
FILENAME_MAX = 255


class ExpiresAfter(BaseModel):
    """How long a file is kept."""

    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Field(strict=True, ge=1, description="at most NAG_FILE_RETENTION_S")]


class FileBody(BaseModel):
    """POST /v1/files, a form."""

    model_config = ConfigDict(extra="forbid")

    file: Annotated[Any, Field(description="an image or a video")] = None
    purpose: Annotated[str, Field(max_length=64, description="kept as it is")] = "vision"
    expires_after: ExpiresAfter | None = None


@forms.post(PATH)
async def create_file(body: FileBody, request: Request, service: Here) -> FileView:
    """Upload an image or a video. Requests name it by its id until `expires_at`."""
    upload = take_upload(request, "file")
    if upload is None:
        raise InvalidParameter("file: must be a file of the multipart/form-data body", param="file")
    return file_view(await _store(upload, body, service))


@router.get(PATH)
async def list_files(service: Here) -> FilesView:
    """Returns the caller's files, newest first."""
    files = [file_view(file) for file in await service.queue.files.list(service.tenant)]
    ends = (files[0].id, files[-1].id) if files else (None, None)
    return FilesView(data=files, first_id=ends[0], last_id=ends[1])


@router.get(PATH + "/{file_id}")
async def get_file(file_id: str, service: Here) -> FileView:
    """Returns a file, without its bytes."""
    return file_view(await service.find_file(file_id))


@router.get(PATH + "/{file_id}/content", response_class=FileResponse)
async def get_file_content(file_id: str, request: Request, service: Here) -> Response:
    """Returns the bytes as they were sent, or a `Range` of them."""
    return await file_response(request, service.artifacts, (await service.find_file(file_id)).name)


@router.delete(PATH + "/{file_id}")
async def delete_file(file_id: str, service: Here) -> FileDeletedView:
    """Remove a file at once. Jobs that were accepted with it have copies of their own."""
    file = await service.find_file(file_id)
    await service.artifacts.delete(file.name)
    await service.queue.files.drop(service.tenant, file_id)
    return FileDeletedView(id=file_id)


async def _store(upload: UploadFile, body: FileBody, service: Service) -> UploadedFile:
    settings = service.settings
    kind = identify(await upload.read(SIGNATURE_BYTES))
    if kind is None or kind not in (*READABLE, *VIDEO_KINDS):
        raise InvalidParameter(f"file: must be an image or a video, got {kind or 'an unknown kind'}", param="file")
    most = settings.video_max_bytes if kind in VIDEO_KINDS else settings.input_max_bytes
    size = upload.size or 0
    if size > most:
        raise InvalidParameter(f"file: must be at most {most} bytes, got {size}", param="file")
    kept_s = settings.file_retention_s if body.expires_after is None else body.expires_after.seconds
    if kept_s > settings.file_retention_s:
        most_s = f"{settings.file_retention_s:g}"
        name = "expires_after.seconds"
        raise InvalidParameter(f"{name}: must be at most {most_s}, got {kept_s}", param=name)
    file_id = f"file-{uuid4().hex}"
    filename = (upload.filename or "file").encode(errors="replace").decode()[:FILENAME_MAX]
    file = UploadedFile(file_id, upload_name(file_id), filename, body.purpose, size)
    # The record goes first: a tenant that has no room stores nothing.
    file = await service.queue.files.add(service.tenant, file, kept_s)
    stored = False
    try:
        await service.artifacts.save(file.name, upload.file)
        stored = True
    finally:
        if not stored:
            await service.queue.files.drop(service.tenant, file_id)
    return file
