"""OpenAI's file object."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from app.queue.uploads import UploadedFile

__all__ = ["FileDeletedView", "FileView", "FilesView", "file_view"]


class FileView(BaseModel):
    """An uploaded file. Times are Unix seconds."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


class FilesView(BaseModel):
    """All files of the caller, newest first."""

    object: Literal["list"] = "list"
    data: list[FileView]
    first_id: str | None
    last_id: str | None
    has_more: Literal[False] = False


class FileDeletedView(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


def file_view(file: UploadedFile) -> FileView:
    return FileView(
        id=file.id, bytes=file.bytes, created_at=int(file.created_at), expires_at=int(file.expires_at),
        filename=file.filename, purpose=file.purpose,
    )  # fmt: skip
