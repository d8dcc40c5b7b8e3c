"""Prepares a request: resolves its fields and files to a job, and the files to those that a worker reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from app.api.inputs.prepared_files import (
    OpenedInput,
    count_frames,
    decode_inputs,
    is_transparent,
    mask_faults,
    open_inputs,
)
from app.api.inputs.sizes import fitting_size
from app.api.inputs.sources import InputSource, LoadedInput, Uploads, edit_sources, find_sources, load_inputs
from app.api.inputs.videos import UploadedVideo
from app.api.model_selection import find_editing_model, find_model, input_faults, takes_none
from app.api.openai.request_adapter import AdaptedRequest, adapt_edit
from app.api.openai.schemas import EditBody
from app.api.requests.fields import NO_NOTES, RequestNotes
from app.api.requests.generation import GenerationBody
from app.api.resolver import resolve
from app.catalog import Kind, Model, RegisteredLora, field_of
from app.errors import InvalidParameter, merge_errors
from app.jobs import InputFiles, InputRole, Job

if TYPE_CHECKING:
    from app.api.service import Service

__all__ = ["prepare_edit", "prepare_images", "prepare_inputs"]

NO_TRANSPARENCY = "cannot regenerate the image's transparent parts: send an opaque image"
#: Roles whose first file gives the size that is made, if the request leaves it open.
SIZED_BY = (InputRole.IMAGE, InputRole.VIDEO, InputRole.FIRST_FRAME, InputRole.REFERENCE)
#: Reads a request in the words of this service, once its model and the roles of its files are known.
Adapt = Callable[[Model], AdaptedRequest]
#: The same of images to edit; the role is that of the first one.
AdaptEdit = Callable[[Model, InputRole], AdaptedRequest]


@dataclass(frozen=True)
class _Request:
    """The fields of a request, the notes on them, and by their ids the uploaded LoRAs that they name."""

    body: GenerationBody
    service: Service
    notes: RequestNotes
    loras: Mapping[str, RegisteredLora]

    def warn(self, *warnings: str) -> _Request:
        return replace(self, notes=replace(self.notes, warnings=(*self.notes.warnings, *warnings)))

    def resolve(
        self, asked: AdaptedRequest, model: Model, roles: Sequence[InputRole], faults: Sequence[InvalidParameter]
    ) -> Job:
        """Raises InvalidParameter with these faults of its files and all others."""
        return resolve(
            asked.body.model_copy(update={"model": model.id}), self.service.catalog, written=asked.written,
            warnings=(*self.notes.warnings, *asked.warnings), roles=roles, uploaded=self.loras, alias=self.notes.name,
            faults=(*asked.faults, *faults),
        )  # fmt: skip


async def prepare_inputs(
    body: GenerationBody,
    uploads: Uploads,
    service: Service,
    adapt: Adapt,
    kind: Kind | None = None,
    notes: RequestNotes = NO_NOTES,
) -> tuple[Job, InputFiles]:
    """Loads the files of a request and resolves it by what they show; `notes` are of its fields.

    Returns the job, and the contents of its files, which are not stored yet.

    Raises InvalidParameter, and as `find_model` and `resolve` do.
    """
    with _refusing(service.find_faults(body)):
        request = _Request(body, service, notes, await service.loras_for(body))
        sources, references = await find_sources(body, uploads, service)
        written = {field_of(source.role): source.field for source in sources if source.field in references}
        roles = [source.role for source in sources]
        model = find_model(service.catalog, body.model, kind, roles, is_open=notes.is_open)
        if not body.strict:
            left_out = [source for source in sources if model.inputs.limits(source.role) is None]
            request = request.warn(*(f"{source.field} was left out: {takes_none(model)}" for source in left_out))
            sources = [source for source in sources if source not in left_out]
            roles = [source.role for source in sources]
        files, faults = list[LoadedInput](), input_faults(model, roles, written)
        if not faults:
            files, faults = await load_inputs(sources, uploads, service, references)
        del uploads, references
        if files and not faults:
            return await _in_decoder(service, lambda: _prepare(request, files, model, adapt))
        return request.resolve(adapt(model), model, roles, faults), {}


async def prepare_edit(
    body: EditBody, uploads: Uploads, service: Service, notes: RequestNotes = NO_NOTES
) -> tuple[Job, InputFiles]:
    """Does what `prepare_inputs` does for images whose roles follow from the model, the mask and the strength."""
    sources = edit_sources(body)
    has_images = any(source.role is InputRole.IMAGE for source in sources)
    missing = [] if has_images else [InvalidParameter("image: must be a file, or several", param="image")]

    def adapt(_: Model, first: InputRole) -> AdaptedRequest:
        return adapt_edit(body, is_told=first is InputRole.REFERENCE)

    return await prepare_images(body, sources, uploads, service, adapt, notes, missing)


async def prepare_images(
    body: GenerationBody,
    sources: Sequence[InputSource],
    uploads: Uploads,
    service: Service,
    adapt: AdaptEdit,
    notes: RequestNotes = NO_NOTES,
    missing: Sequence[InvalidParameter] = (),
) -> tuple[Job, InputFiles]:
    """Does what `prepare_edit` does for images and at most one mask, under any names. It reads the model, the strength
    and the LoRAs of `body`. `missing` is the error of a request without images.
    """
    with _refusing(service.find_faults(body)):
        request = _Request(body, service, notes, await service.loras_for(body))
        images = [source for source in sources if source.role is not InputRole.MASK]
        masks = [source for source in sources if source.role is InputRole.MASK]
        model, count = _editing_model(request, max(1, len(images)), is_masked=bool(masks))
        if count < len(images):
            name = images[0].field.partition(".")[0]
            request = request.warn(
                f"{name}: model {model.id} takes {count} here, got {len(images)}; the further images were left out"
            )
        files, faults = await load_inputs((*images[:count], *masks), uploads, service)
        faults = [*missing, *faults]
        del uploads
        return await _in_decoder(service, lambda: _prepare_edit(request, files, faults, count, adapt))


@contextmanager
def _refusing(faults: Sequence[InvalidParameter]) -> Iterator[None]:
    """Raises the faults, joined to those that are raised within."""
    try:
        yield
    except InvalidParameter as error:
        raise merge_errors([error, *faults]) from None
    if faults:
        raise merge_errors(faults)


def _editing_model(request: _Request, images: int, *, is_masked: bool) -> tuple[Model, int]:
    """Returns the model that edits, and how many of the images it takes: all, or fewer if the request is lenient.

    Raises InvalidParameter.
    """
    refusal: InvalidParameter | None = None
    body = request.body
    for count in range(images, 0 if not body.strict else images - 1, -1):
        try:
            model = find_editing_model(
                request.service.catalog, body.model, count, is_masked=is_masked,
                has_strength=body.strength is not None, is_open=request.notes.is_open,
            )  # fmt: skip
        except InvalidParameter as error:
            refusal = refusal or error
        else:
            return model, count
    assert refusal is not None
    raise refusal


async def _in_decoder(service: Service, prepare: Callable[[], tuple[Job, InputFiles]]) -> tuple[Job, InputFiles]:
    return await asyncio.get_running_loop().run_in_executor(service.decoder, prepare)


def _prepare(request: _Request, files: list[LoadedInput], model: Model, adapt: Adapt) -> tuple[Job, InputFiles]:
    opened, faults = open_inputs(files, request.service.settings)
    mask = next((file for file in opened if file.role is InputRole.MASK), None)
    image = next((file for file in opened if file.role is InputRole.IMAGE), None)
    if image is not None and mask is None and is_transparent(image, faults):
        model = _regenerating_model(request, has_strength=True)
        opened.append(replace(image, role=InputRole.MASK))
    return _finish(request, opened, adapt(model), model, faults)


def _prepare_edit(
    request: _Request, files: list[LoadedInput], faults: list[InvalidParameter], count: int, adapt: AdaptEdit
) -> tuple[Job, InputFiles]:
    """Does as `_prepare` for `count` images and perhaps a mask; `faults` are those of files that did not load."""
    opened, broken = open_inputs(files, request.service.settings)
    faults = [*faults, *broken]
    images = [file for file in opened if file.role is InputRole.IMAGE]
    has_mask = len(images) < len(opened)
    has_strength = request.body.strength is not None
    model, _ = _editing_model(request, count, is_masked=has_mask)
    takes_masks = "inpaint" in model.inputs.tasks or model.inputs.references is None
    if not has_mask and len(images) == count == 1 and takes_masks and is_transparent(images[0], faults):
        model = _regenerating_model(request, has_strength=has_strength)
        opened.append(replace(images[0], role=InputRole.MASK))
        has_mask = True
    roles = model.inputs.image_roles(count, is_masked=has_mask, has_strength=has_strength)
    assert roles is not None
    opened = [replace(file, role=role) for file, role in zip(opened, roles, strict=not faults)]
    return _finish(request, opened, adapt(model, roles[0]), model, faults)


def _regenerating_model(request: _Request, *, has_strength: bool) -> Model:
    """Returns the model for an image that is transparent where it is regenerated. Raises InvalidParameter."""
    return find_editing_model(
        request.service.catalog, request.body.model, 1, is_masked=True, has_strength=has_strength,
        problem=NO_TRANSPARENCY, is_open=request.notes.is_open,
    )  # fmt: skip


def _finish(
    request: _Request, files: list[OpenedInput], asked: AdaptedRequest, model: Model, faults: Sequence[InvalidParameter]
) -> tuple[Job, InputFiles]:
    """Resolves the request, and decodes the files to the sizes that it needs them in.

    Raises InvalidParameter with the `faults` of its files and all others.
    """
    image = next((file for file in files if file.role is InputRole.IMAGE), None)
    mask = next((file for file in files if file.role is InputRole.MASK), None)
    body, all_faults = asked.body, list(faults)
    first = next((file for role in SIZED_BY for file in files if file.role is role), None)
    if first is not None:
        width, height = fitting_size(*first.upload.size, model)
        body = body.model_copy(update={"width": body.width or width, "height": body.height or height})
        if isinstance(first.upload, UploadedVideo):
            num_frames, frame_warnings = count_frames(first.upload, body.num_frames, model, all_faults)
            body = body.model_copy(update={"num_frames": num_frames})
            request = request.warn(*frame_warnings)
    if image is not None and mask is not None:
        all_faults += mask_faults(mask, image)
    job = request.resolve(replace(asked, body=body), model, [file.role for file in files], all_faults)
    return decode_inputs(files, job, model)
