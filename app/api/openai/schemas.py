"""The bodies of OpenAI's routes: their fields, and ours in addition."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from app.api.requests.body import BLANK_IS_ABSENT, BY_ITS_NAME, Body, OptionalText, check_form
from app.api.requests.generation import GenerationBody
from app.catalog import Method
from app.catalog.inputs import FILES_MAX

__all__ = ["EditBody", "FileReference", "ImageBody", "OpenAIBody", "VideoBody"]

SIZE = r"^(auto|[0-9]{1,6}x[0-9]{1,6})?$"
SECONDS = r"^[0-9]{1,4}(\.[0-9]{1,4})?$"


class OpenAIBody(GenerationBody):
    """What OpenAI's SDKs send on either route. Our own fields come by their `extra_body`, those of `nag` also flat."""

    size: Annotated[
        str | None,
        check_form(SIZE, "auto or WIDTHxHEIGHT, such as 1024x1024"),
        Field(json_schema_extra={"pattern": SIZE}),
        BLANK_IS_ABSENT,
    ] = None
    """`auto`, or WIDTHxHEIGHT. `auto` of an edit has the image's proportions and about the model's default area."""

    user: OptionalText = None
    """Accepted for the SDKs and not stored; `warnings` says so."""

    safety_identifier: OptionalText = None
    """Accepted for the SDKs and not stored; `warnings` says so."""

    nag_scale: float | None = None
    """nag.scale."""

    nag_tau: float | None = None
    """nag.tau."""

    nag_alpha: float | None = None
    """nag.alpha."""

    nag_end: float | None = None
    """nag.end."""

    nag_scale_decay: float | None = None
    """nag.scale_decay."""

    nag_start: float | None = None
    """nag.start."""

    nag_method: Method | None = None
    """nag.method."""

    nag_anneal: Annotated[float | None, Field(json_schema_extra={"deprecated": True})] = None
    """Former name of nag_scale_decay."""

    nag_negative_prompt: OptionalText = None
    """nag.negative_prompt."""


class ImageBody(OpenAIBody):
    """POST /v1/images/generations: OpenAI's fields, and ours in addition."""

    response_format: Annotated[Literal["b64_json", "base64", "url"] | None, BY_ITS_NAME] = None
    """`base64` is `b64_json`. Default: url under dall-e-*, b64_json under gpt-image-*, else NAG_RESPONSE_FORMAT."""

    stream: bool | None = None
    """Whether to answer with server-sent events."""

    partial_images: Annotated[int | None, Field(ge=0, le=3)] = None
    """Largest number of previews of each image. It needs stream."""

    quality: OptionalText = None
    """auto or standard. Use num_inference_steps instead."""

    style: OptionalText = None
    """Refused. Say it in the prompt."""

    background: OptionalText = None
    """auto or opaque."""

    moderation: OptionalText = None
    """auto or low. Nothing is moderated."""

    complexity: OptionalText = None
    """Refused. Nothing is planned."""


class FileReference(Body):
    """A file by its id, or by a data URL or the URL of an allowed host."""

    file_id: str | None = None
    image_url: str | None = None

    @property
    def text(self) -> str:
        return self.file_id or self.image_url or ""


class EditBody(ImageBody):
    """POST /v1/images/edits, a form or JSON: OpenAI's fields, and ours in addition."""

    image: str | Annotated[list[str], Field(max_length=FILES_MAX)] | None = None  # type: ignore[assignment]
    """One or several files: PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or HEIC. A model that takes instructions in the
    prompt uses them whole. Other models change the middle of the image, scaled to the size of the result. A model that
    takes masks regenerates what is transparent in the image, unless there is a mask.
    """

    images: Annotated[list[FileReference] | None, Field(max_length=FILES_MAX)] = None
    """The same by reference, in JSON."""

    mask: str | FileReference | None = None  # type: ignore[assignment]
    input_fidelity: OptionalText = None
    """`low`; `high` for a model that takes instructions in the prompt. For other models use a lower strength."""


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class VideoBody(OpenAIBody):
    """POST /v1/videos: OpenAI's fields, and ours in addition."""

    seconds: Annotated[
        str | None,
        check_form(SECONDS, "a number of at most 9999 seconds, such as 4 or 2.5"),
        BLANK_IS_ABSENT,
        BeforeValidator(_as_text),
        Field(json_schema_extra={"pattern": SECONDS}),
    ] = None
    """Length. The video has the number of frames of the model's grid that is nearest to it."""

    input_reference: str | FileReference | None = None
    """The first frame, or a video to change: the kind of the file decides, if the model takes it."""
