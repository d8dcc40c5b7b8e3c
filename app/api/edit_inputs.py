"""Prepares the files of an edit: its image, and the mask of what is regenerated, in the size that the model makes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from PIL import ImageOps

from app.api.image_inputs import REGENERATED_BELOW, UploadedImage, png_file
from app.api.openai.asked import of_an_edit
from app.api.resolve import NO_LORAS, NO_MASK, NO_TRANSPARENCY, Resolved, find_editing_model, resolve
from app.api.schemas import EditBody
from app.artifacts import Artifacts, input_name
from app.catalog import Catalog, Model, RegisteredLora
from app.errors import InvalidParameter
from app.jobs import Edit
from app.settings import Settings

__all__ = ["PreparedInput", "fitting_size", "prepare_edit"]


@dataclass(frozen=True)
class PreparedInput:
    """What a worker starts from, as PNG files: the image in RGB, and the mask in L, white where it is regenerated.

    `digest` is that of the uploaded files.
    """

    strength: float
    image: bytes
    mask: bytes | None
    digest: str

    def edit(self, job_id: str) -> Edit:
        """Returns the job's part, which names files that are not stored yet."""
        image, mask = (input_name(job_id, part) for part in ("image", "mask"))
        return Edit(self.strength, image, None if self.mask is None else mask)

    async def store(self, edit: Edit, artifacts: Artifacts) -> None:
        """Raises ArtifactsError; some of the files may be there all the same."""
        files = (self.image,) if self.mask is None else (self.image, self.mask)
        for name, data in zip(edit.names, files, strict=True):
            await artifacts.save(name, data)


def prepare_edit(
    image: bytes, mask: bytes | None, body: EditBody, catalog: Catalog, settings: Settings,
    loras: Mapping[str, RegisteredLora] = NO_LORAS,
) -> tuple[Resolved, PreparedInput]:  # fmt: skip
    """Decodes the files one after the other, and resolves the request by what they show; call it in a thread.

    Raises InvalidParameter, and as `find_editing_model` and `resolve` do.
    """
    limits = {"max_px": settings.input_max_px, "max_bytes": settings.input_max_bytes}
    source = UploadedImage("image", image, **limits)
    masking = source if mask is None else _read_mask(mask, source, limits)
    is_masked = mask is not None or source.has_transparency
    problem = NO_TRANSPARENCY if mask is None else NO_MASK
    model = find_editing_model(catalog, body.model, "inpaint" if is_masked else "img2img", problem)
    asked = of_an_edit(body, model, *fitting_size(*source.size, model))
    resolved = resolve(asked.body, catalog, written=asked.written, warnings=asked.warnings, uploaded=loras)
    size = resolved.generation.width, resolved.generation.height
    mask_file = png_file(ImageOps.invert(masking.fit_alpha(*size))) if is_masked else None
    warnings = [] if masking is source else masking.warnings
    del masking  # the decoded mask, before the image takes as much memory
    image_file = png_file(source.fit(*size))
    digest = "".join(hashlib.sha256(data).hexdigest() for data in (image, mask) if data is not None)
    resolved = replace(resolved, warnings=(*resolved.warnings, *source.warnings, *warnings))
    return resolved, PreparedInput(body.strength, image_file, mask_file, digest)


def _read_mask(data: bytes, source: UploadedImage, limits: Mapping[str, int]) -> UploadedImage:
    mask = UploadedImage("mask", data, **limits)
    if mask.size != source.size:
        got = " and ".join(f"{width}x{height}" for width, height in (source.size, mask.size))
        raise InvalidParameter(f"mask: must be as large as the image; they are {got}", param="mask")
    if not mask.has_transparency:
        raise InvalidParameter(
            f"mask: must be transparent (alpha below {REGENERATED_BELOW}) where the image is regenerated; black and "
            "white do not count",
            param="mask",
        )
    return mask


def fitting_size(width: int, height: int, model: Model) -> tuple[int, int]:
    """Returns width and height in pixels: these proportions, the area of the model's default, on its grid."""
    scale = (model.width.default * model.height.default / (width * height)) ** 0.5
    return model.width.nearest(width * scale), model.height.nearest(height * scale)
