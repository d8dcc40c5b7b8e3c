"""Finds the files that the fields of a request name, and loads each from the body, the store or its URL."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

from app.api.inputs.image_kinds import SIGNATURE_BYTES, VIDEO_KINDS, identify
from app.api.inputs.urls import fetch_file, is_url
from app.api.openai.schemas import EditBody, FileReference, VideoBody
from app.api.requests.generation import GenerationBody
from app.catalog import field_of
from app.errors import InvalidParameter, NotFound
from app.jobs import InputRole

if TYPE_CHECKING:
    from app.api.service import Service

__all__ = ["InputSource", "LoadedInput", "Uploads", "edit_sources", "find_sources", "load_input", "load_inputs"]

#: The files of a request's body, by the texts that stand for them.
Uploads = Mapping[str, bytes | BinaryIO]
NONE_LOADED: Mapping[str, BinaryIO] = {}


@dataclass(frozen=True)
class InputSource:
    """A file of a request before it is loaded: `text` stands for it in the field."""

    role: InputRole
    field: str
    text: str


#: A file as it was sent, and where; an uploaded or generated one stays on the disk.
LoadedInput = tuple[InputSource, BinaryIO]


async def find_sources(
    body: GenerationBody, uploads: Uploads, service: Service
) -> tuple[list[InputSource], dict[str, BinaryIO]]:
    """Returns the request's files, and the one of `input_reference` by that name: its role is that of its content.

    Raises InvalidParameter.
    """
    sources, references = list(_sources(body)), dict[str, BinaryIO]()
    if isinstance(body, VideoBody) and body.input_reference is not None:
        source = InputSource(InputRole.FIRST_FRAME, "input_reference", _text(body.input_reference))
        file = references[source.field] = await load_input(source, uploads, service)
        if identify(file.read(SIGNATURE_BYTES)) in VIDEO_KINDS:
            source = replace(source, role=InputRole.VIDEO)
        if any(source.role is other.role for other in sources):
            message = f"input_reference and {field_of(source.role)} say the same; send one"
            raise InvalidParameter(message, param="input_reference")
        sources.append(source)
    return sources, references


def edit_sources(body: EditBody) -> list[InputSource]:
    """Returns the images of an edit, and then its mask. Raises InvalidParameter."""
    images = [InputSource(InputRole.IMAGE, name, text) for name, text in _edited_images(body)]
    masks = [] if body.mask is None else [InputSource(InputRole.MASK, "mask", _text(body.mask))]
    return [*images, *masks]


async def load_inputs(
    sources: Sequence[InputSource],
    uploads: Uploads,
    service: Service,
    loaded: Mapping[str, BinaryIO] = NONE_LOADED,
) -> tuple[list[LoadedInput], list[InvalidParameter]]:
    """Returns the files, and the faults of those that cannot be had; `loaded` has some by their fields.

    Raises NotFound.
    """
    files, faults = list[LoadedInput](), list[InvalidParameter]()
    for source in sources:
        try:
            file = loaded.get(source.field) or await load_input(source, uploads, service)
        except InvalidParameter as fault:
            faults.append(fault)
        else:
            files.append((source, file))
    return files, faults


async def load_input(source: InputSource, uploads: Uploads, service: Service) -> BinaryIO:
    """Returns a file. Raises InvalidParameter, NotFound for an unknown id."""
    text, field, settings = source.text, source.field, service.settings
    if text in uploads:
        upload = uploads[text]
        return io.BytesIO(upload) if isinstance(upload, bytes) else upload
    if text.startswith("file-"):
        file = await service.find_file(text, field)
        try:
            return await service.artifacts.open_file(file.name)
        except FileNotFoundError:
            raise NotFound(f"{field}: no file {text!r}", param=field, code="file_not_found") from None
    if is_url(text):
        most = settings.video_max_bytes if source.role is InputRole.VIDEO else settings.input_max_bytes
        return io.BytesIO(await fetch_file(text, field, settings, most))
    message = f"{field}: must be a file of the form, a data URL (data:image/png;base64,…) or the id of an uploaded file"
    raise InvalidParameter(message, param=field)


def _sources(body: GenerationBody) -> Iterator[InputSource]:
    for role in InputRole:
        name = field_of(role)
        value = getattr(body, name)
        texts = value if isinstance(value, list) else [] if value is None else [value]
        for index, text in enumerate(texts):
            yield InputSource(role, f"{name}.{index}" if isinstance(value, list) else name, text)


def _edited_images(body: EditBody) -> Iterator[tuple[str, str]]:
    if body.image is not None and body.images is not None:
        raise InvalidParameter("images and image say the same; send one", param="images")
    if isinstance(body.image, str):
        yield "image", body.image
    for index, text in enumerate(body.image if isinstance(body.image, list) else ()):
        yield f"image.{index}", text
    for index, reference in enumerate(body.images or ()):
        yield f"images.{index}", _text(reference)


def _text(value: str | FileReference) -> str:
    return value if isinstance(value, str) else value.text
