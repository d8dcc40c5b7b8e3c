"""The files that a request starts from: loads them, and makes them what a worker reads."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

from PIL import ImageOps

from app.api.file_urls import fetch_file, is_url
from app.api.image_inputs import REGENERATED_BELOW, UploadedImage, png_file
from app.api.image_kinds import SIGNATURE_BYTES, VIDEO_KINDS, identify
from app.api.leniency import NO_NOTES, RequestNotes
from app.api.openai.asked import Asked, of_an_edit
from app.api.resolve import (
    Resolved,
    find_editing_model,
    find_model,
    input_faults,
    resolve,
    takes_none,
)
from app.api.schemas import EditBody, FileReference, GenerationBody, VideoBody
from app.api.video_inputs import UploadedVideo
from app.artifacts import Artifacts, input_name
from app.catalog import Catalog, Kind, Model, RegisteredLora, field_of
from app.errors import InvalidParameter, NotFound, joined
from app.jobs import InputFile, InputRole

if TYPE_CHECKING:
    from app.api.service import Service

__all__ = [
    "InputSource",
    "PreparedFile",
    "PreparedInputs",
    "fitting_size",
    "load_input",
    "prepare_edit",
    "prepare_images",
    "prepare_inputs",
]

NO_TRANSPARENCY = "cannot regenerate the image's transparent parts: send an opaque image"
#: Roles whose first file gives the size that is made, where the request leaves it open.
SIZED_BY = (InputRole.IMAGE, InputRole.VIDEO, InputRole.FIRST_FRAME, InputRole.REFERENCE)
#: Roles whose transparent pixels are regenerated.
REGENERATED = (InputRole.IMAGE, InputRole.MASK)
#: Bytes of a file that are read at once for its digest.
DIGEST_BYTES = 2**18
NONE_LOADED: Mapping[str, BinaryIO] = {}
#: The uploaded LoRAs that a request names, by their ids.
Loras = Mapping[str, RegisteredLora]
#: Reads a request in the words of this service, once its model and the roles of its files are known.
Adapt = Callable[[Model], Asked]
#: The same of images to edit; the role is that of the first one.
AdaptEdit = Callable[[Model, InputRole], Asked]


@dataclass(frozen=True)
class InputSource:
    """A file of a request before it is loaded: `text` stands for it in the field."""

    role: InputRole
    field: str
    text: str


@dataclass(frozen=True)
class LoadedInput:
    """A file as it was sent. An uploaded or generated one stays on the disk."""

    role: InputRole
    field: str
    file: BinaryIO


@dataclass(frozen=True)
class PreparedFile:
    """A file as a worker reads it, and the digest of what was sent."""

    role: InputRole
    data: bytes | BinaryIO
    sha256: str


@dataclass(frozen=True)
class PreparedInputs:
    """All files of a request."""

    files: tuple[PreparedFile, ...]

    @property
    def digest(self) -> str:
        """Equal for equal files in equal roles."""
        return ",".join(f"{file.role}:{file.sha256}" for file in self.files)

    def of_job(self, job_id: str) -> tuple[InputFile, ...]:
        """Returns the job's files, which are not stored yet."""
        return tuple(
            InputFile(file.role, input_name(job_id, file.role, index), file.sha256)
            for index, file in enumerate(self.files)
        )

    async def store(self, files: Sequence[InputFile], artifacts: Artifacts) -> None:
        """Raises ArtifactsError; some of the files may be there all the same."""
        for file, prepared in zip(files, self.files, strict=True):
            await artifacts.save(file.name, prepared.data)


async def prepare_inputs(
    body: GenerationBody,
    uploads: Mapping[str, bytes | BinaryIO],
    service: Service,
    adapt: Adapt,
    kind: Kind | None = None,
    notes: RequestNotes = NO_NOTES,
) -> tuple[Resolved, PreparedInputs | None]:
    """Loads the files of a request and resolves it by what they show; `notes` are of its fields.

    Raises InvalidParameter, and as `find_model` and `resolve` do.
    """
    with _refusing(service.find_faults(body)):
        loras = await service.loras_for(body)
        sources, references = await _sources_of(body, uploads, service)
        written = {field_of(source.role): source.field for source in sources if source.field in references}
        roles = [source.role for source in sources]
        model = find_model(service.catalog, body.model, kind, roles, is_open=notes.is_open)
        if not body.strict:
            left_out = [source for source in sources if model.inputs.limits(source.role) is None]
            said = [f"{source.field} was left out: {takes_none(model)}" for source in left_out]
            sources = [source for source in sources if source not in left_out]
            notes = replace(notes, warnings=(*notes.warnings, *said))
        files, faults = list[LoadedInput](), input_faults(model, [source.role for source in sources], written)
        if not faults:
            files, faults = await _load(sources, uploads, service, references)
        del uploads, references
        if files and not faults:
            return await _in_decoder(service, lambda: _prepare(files, body, model, adapt, service, notes, loras))
        roles = [source.role for source in sources]
        return _resolve(adapt(model), model, service.catalog, notes, loras, roles, faults), None


@contextmanager
def _refusing(faults: Sequence[InvalidParameter]) -> Iterator[None]:
    """Raises the faults, joined to those that are raised within."""
    try:
        yield
    except InvalidParameter as error:
        raise joined([error, *faults]) from None
    if faults:
        raise joined(faults)


async def _sources_of(
    body: GenerationBody, uploads: Mapping[str, bytes | BinaryIO], service: Service
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


async def prepare_edit(
    body: EditBody, uploads: Mapping[str, bytes], service: Service, notes: RequestNotes = NO_NOTES
) -> tuple[Resolved, PreparedInputs]:
    """As `prepare_inputs`, of images whose roles follow from the model, the mask and the strength."""
    images = [InputSource(InputRole.IMAGE, name, text) for name, text in _edited_images(body)]
    masks = [] if body.mask is None else [InputSource(InputRole.MASK, "mask", _text(body.mask))]
    missing = [] if images else [InvalidParameter("image: must be a file, or several", param="image")]

    def adapt(model: Model, first: InputRole) -> Asked:
        return of_an_edit(body, model, is_told=first is InputRole.REFERENCE)

    return await prepare_images(body, [*images, *masks], uploads, service, adapt, notes, missing)


async def prepare_images(
    body: GenerationBody,
    sources: Sequence[InputSource],
    uploads: Mapping[str, bytes | BinaryIO],
    service: Service,
    adapt: AdaptEdit,
    notes: RequestNotes = NO_NOTES,
    missing: Sequence[InvalidParameter] = (),
) -> tuple[Resolved, PreparedInputs]:
    """As `prepare_edit`, of images and at most one mask, by any names; of `body` it reads the model, the strength and
    the LoRAs. `missing` is the fault of a request without images.
    """
    with _refusing(service.find_faults(body)):
        loras = await service.loras_for(body)
        images = [source for source in sources if source.role is not InputRole.MASK]
        masks = [source for source in sources if source.role is InputRole.MASK]
        model, count = _editing_model(service.catalog, body, max(1, len(images)), notes, is_masked=bool(masks))
        if count < len(images):
            name = images[0].field.partition(".")[0]
            said = f"{name}: model {model.id} takes {count} here, got {len(images)}; the further images were left out"
            notes = replace(notes, warnings=(*notes.warnings, said))
        files, faults = await _load((*images[:count], *masks), uploads, service)
        faults = [*missing, *faults]
        del uploads
        return await _in_decoder(
            service, lambda: _prepare_edit(files, faults, count, body, adapt, service, notes, loras)
        )


async def _load(
    sources: Sequence[InputSource],
    uploads: Mapping[str, bytes | BinaryIO],
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
            files.append(LoadedInput(source.role, source.field, file))
    return files, faults


def _editing_model(
    catalog: Catalog, body: GenerationBody, images: int, notes: RequestNotes, *, is_masked: bool
) -> tuple[Model, int]:
    """Returns the model that edits, and how many of the images it takes: all, or fewer if the request is lenient.

    Raises InvalidParameter.
    """
    refusal: InvalidParameter | None = None
    for count in range(images, 0 if not body.strict else images - 1, -1):
        try:
            model = find_editing_model(
                catalog, body.model, count, is_masked=is_masked, has_strength=body.strength is not None,
                is_open=notes.is_open,
            )  # fmt: skip
        except InvalidParameter as error:
            refusal = refusal or error
        else:
            return model, count
    assert refusal is not None
    raise refusal


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


async def load_input(source: InputSource, uploads: Mapping[str, bytes | BinaryIO], service: Service) -> BinaryIO:
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


async def _in_decoder(
    service: Service, prepare: Callable[[], tuple[Resolved, PreparedInputs]]
) -> tuple[Resolved, PreparedInputs]:
    return await asyncio.get_running_loop().run_in_executor(service.decoder, prepare)


def _prepare(
    files: list[LoadedInput],
    body: GenerationBody,
    model: Model,
    adapt: Adapt,
    service: Service,
    notes: RequestNotes,
    loras: Loras,
) -> tuple[Resolved, PreparedInputs]:
    opened, faults = _open_all(files, service)
    mask = next((file for file in opened if file.role is InputRole.MASK), None)
    image = next((file for file in opened if file.role is InputRole.IMAGE), None)
    if image is not None and mask is None and _is_transparent(image, faults):
        model = find_editing_model(
            service.catalog, body.model, 1, is_masked=True, has_strength=True, problem=NO_TRANSPARENCY,
            is_open=notes.is_open,
        )  # fmt: skip
        opened.append(replace(image, role=InputRole.MASK))
    return _finish(opened, adapt(model), model, service.catalog, notes, loras, faults)


def _prepare_edit(
    files: list[LoadedInput],
    faults: list[InvalidParameter],
    count: int,
    body: GenerationBody,
    adapt: AdaptEdit,
    service: Service,
    notes: RequestNotes,
    loras: Loras,
) -> tuple[Resolved, PreparedInputs]:
    """As `_prepare`, of `count` images and perhaps a mask; `faults` are of those that are not among the files."""
    opened, broken = _open_all(files, service)
    faults = [*faults, *broken]
    images = [file for file in opened if file.role is InputRole.IMAGE]
    has_mask = len(images) < len(opened)
    has_strength = body.strength is not None
    model, _ = _editing_model(service.catalog, body, count, notes, is_masked=has_mask)
    takes_masks = "inpaint" in model.inputs.tasks or model.inputs.references is None
    if not has_mask and len(images) == count == 1 and takes_masks and _is_transparent(images[0], faults):
        model = find_editing_model(
            service.catalog, body.model, 1, is_masked=True, has_strength=has_strength, problem=NO_TRANSPARENCY,
            is_open=notes.is_open,
        )  # fmt: skip
        opened.append(replace(images[0], role=InputRole.MASK))
        has_mask = True
    roles = model.inputs.image_roles(count, is_masked=has_mask, has_strength=has_strength)
    assert roles is not None
    opened = [replace(file, role=role) for file, role in zip(opened, roles, strict=not faults)]
    return _finish(opened, adapt(model, roles[0]), model, service.catalog, notes, loras, faults)


@dataclass(frozen=True)
class _OpenedInput:
    """A file whose header was read."""

    role: InputRole
    field: str
    upload: UploadedImage | UploadedVideo
    sha256: str


def _open_all(files: Sequence[LoadedInput], service: Service) -> tuple[list[_OpenedInput], list[InvalidParameter]]:
    """Returns the files that can be read, and the faults of the others."""
    opened, faults = list[_OpenedInput](), list[InvalidParameter]()
    for file in files:
        try:
            opened.append(_open(file, service))
        except InvalidParameter as fault:
            faults.append(fault)
    return opened, faults


def _open(loaded: LoadedInput, service: Service) -> _OpenedInput:
    settings, file = service.settings, loaded.file
    upload: UploadedImage | UploadedVideo
    if loaded.role is InputRole.VIDEO:
        limits = {"max_px": settings.input_max_px, "max_bytes": settings.video_max_bytes}
        upload = UploadedVideo(loaded.field, file, **limits)
    else:
        size_bytes, most = file.seek(0, os.SEEK_END), settings.input_max_bytes
        if size_bytes > most:  # an uploaded video may be larger than memory
            message = f"{loaded.field}: must be at most {most} bytes, got {size_bytes}"
            raise InvalidParameter(message, param=loaded.field)
        file.seek(0)
        upload = UploadedImage(loaded.field, file.read(size_bytes), max_px=settings.input_max_px, max_bytes=most)
    return _OpenedInput(loaded.role, loaded.field, upload, _sha256(file))


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(DIGEST_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _finish(
    files: list[_OpenedInput],
    asked: Asked,
    model: Model,
    catalog: Catalog,
    notes: RequestNotes,
    loras: Loras,
    faults: Sequence[InvalidParameter],
) -> tuple[Resolved, PreparedInputs]:
    """Resolves the request, and decodes the files one after the other to the sizes that it needs them in.

    Raises InvalidParameter with the `faults` of its files and all others.
    """
    image = next((file for file in files if file.role is InputRole.IMAGE), None)
    mask = next((file for file in files if file.role is InputRole.MASK), None)
    body, found = asked.body, list(faults)
    first = next((file for role in SIZED_BY for file in files if file.role is role), None)
    if first is not None:
        width, height = fitting_size(*first.upload.size, model)
        body = body.model_copy(update={"width": body.width or width, "height": body.height or height})
        if isinstance(first.upload, UploadedVideo):
            num_frames, said = _num_frames(first.upload, body, model, found)
            body = body.model_copy(update={"num_frames": num_frames})
            notes = replace(notes, warnings=(*notes.warnings, *said))
    if image is not None and mask is not None:
        found += _mask_faults(mask, image)
    asked = replace(asked, body=body)
    resolved = _resolve(asked, model, catalog, notes, loras, [file.role for file in files], found)
    size = resolved.generation.width, resolved.generation.height
    uploads = list(dict.fromkeys(file.upload for file in files))
    prepared = dict[int, PreparedFile]()
    # The mask goes first: its decoded pixels are released before the image takes as much memory.
    for index in sorted(range(len(files)), key=lambda index: files[index].role is not InputRole.MASK):
        file = files[index]
        if isinstance(file.upload, UploadedVideo):
            prepared[index] = PreparedFile(file.role, file.upload.file, file.sha256)
            continue
        if file.role is InputRole.MASK:
            pixels = ImageOps.invert(file.upload.fit_alpha(*size))
        elif file.role is InputRole.REFERENCE:
            pixels = file.upload.fit(*fitting_size(*file.upload.size, model))
        else:
            pixels = file.upload.fit(*size)
        if file.role not in REGENERATED and file.upload.has_transparency:
            file.upload.warnings.append(f"{file.field}: transparent pixels were replaced by gray")
        prepared[index] = PreparedFile(file.role, png_file(pixels), file.sha256)
        if file.upload is not (image and image.upload) or file.role is not InputRole.MASK:
            file.upload.release()
    of_files = (warning for upload in uploads for warning in upload.warnings)
    resolved = replace(resolved, warnings=(*resolved.warnings, *of_files))
    return resolved, PreparedInputs(tuple(prepared[index] for index in range(len(files))))


def _resolve(
    asked: Asked,
    model: Model,
    catalog: Catalog,
    notes: RequestNotes,
    loras: Loras,
    roles: Sequence[InputRole],
    faults: Sequence[InvalidParameter],
) -> Resolved:
    """Raises InvalidParameter with these faults and all others."""
    return resolve(
        asked.body.model_copy(update={"model": model.id}), catalog, written=asked.written,
        warnings=(*notes.warnings, *asked.warnings), roles=roles, uploaded=loras, alias=notes.name,
        faults=(*asked.faults, *faults),
    )  # fmt: skip


def _num_frames(
    video: UploadedVideo, body: GenerationBody, model: Model, faults: list[InvalidParameter]
) -> tuple[int, list[str]]:
    """Returns how many frames are made of a video, and what the caller is told. A video that is too short is added to
    the faults.
    """
    allowed = model.num_frames
    assert allowed is not None
    wanted = body.num_frames
    if wanted is None:
        grid = [count for count in range(allowed.min, min(video.frames, allowed.max) + 1) if allowed.holds(count)]
        wanted = grid[-1] if grid else allowed.min
    if wanted > video.frames:
        message = f"video: must have at least {wanted} frames, got {video.frames}"
        faults.append(InvalidParameter(message, param="video"))
    return wanted, [] if wanted >= video.frames else [
        f"video: the first {wanted} of its {video.frames} frames were used"
    ]


def _mask_faults(mask: _OpenedInput, image: _OpenedInput) -> list[InvalidParameter]:
    if mask.upload.size != image.upload.size:
        got = " and ".join(f"{width}x{height}" for width, height in (image.upload.size, mask.upload.size))
        return [InvalidParameter(f"mask: must be as large as the image; they are {got}", param="mask")]
    faults = list[InvalidParameter]()
    if not _is_transparent(mask, faults) and not faults:
        message = (
            f"mask: must be transparent (alpha below {REGENERATED_BELOW}) where the image is regenerated; black and "
            "white do not count"
        )
        faults.append(InvalidParameter(message, param="mask"))
    return faults


def _is_transparent(file: _OpenedInput, faults: list[InvalidParameter]) -> bool:
    """Whether some of its pixels are. That it cannot be decoded is added to the faults."""
    try:
        return file.upload.has_transparency
    except InvalidParameter as fault:
        faults.append(fault)
        return False


def fitting_size(width: int, height: int, model: Model) -> tuple[int, int]:
    """Returns width and height in pixels: these proportions, the area of the model's default, on its grid."""
    scale = (model.width.default * model.height.default / (width * height)) ** 0.5
    return model.width.nearest(width * scale), model.height.nearest(height * scale)
