"""OpenAI's requests read as ours: sizes, seconds, flat guidance fields, and options that mean nothing here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.api.openai.schemas import EditBody, ImageBody, OpenAIBody, VideoBody
from app.api.requests.generation import GenerationBody, NAGBody
from app.catalog import NAG_BOUNDS, Model
from app.errors import InvalidParameter, UnsupportedParameter
from app.jobs import FORMER_NAMES

__all__ = ["AdaptedRequest", "adapt_edit", "adapt_images", "adapt_video"]

#: Values that ask for nothing, or for what every image has.
NEUTRAL: dict[str, tuple[str, ...]] = {
    "quality": ("auto", "standard"),
    "style": (),
    "background": ("auto", "opaque"),
    "moderation": ("auto", "low"),
    "complexity": (),
}
NO_OTHERS: Mapping[str, tuple[str, ...]] = {}


@dataclass(frozen=True)
class AdaptedRequest:
    """A request in our own words, the caller's names for its fields, and what a lenient one goes without.

    faults: what is wrong with it, to be raised with what else is.
    """

    body: GenerationBody
    written: Mapping[str, str]
    warnings: tuple[str, ...]
    faults: tuple[InvalidParameter, ...] = ()


def adapt_images(body: ImageBody, also: Mapping[str, tuple[str, ...]] = NO_OTHERS) -> AdaptedRequest:
    """Reads a request for images. `also` has neutral values of further fields."""
    adapter = _RequestAdapter(body)
    for name, neutral in {**NEUTRAL, **also}.items():
        value = getattr(body, name)
        if value is not None and value not in neutral:
            adapter.leave_out(name, f"only {' or '.join(neutral)} is supported" if neutral else "not supported")
    if body.partial_images and not body.stream:
        adapter.leave_out("partial_images", "they come with stream alone")
    elif body.partial_images:
        adapter.say("previews", "partial_images", body.partial_images)
    if body.stream and body.response_format == "url":
        adapter.refuse("response_format", "a stream carries b64_json")
    return adapter.adapted()


def adapt_edit(body: EditBody, *, is_told: bool) -> AdaptedRequest:
    """Does what `adapt_images` does for an edit. A model that takes instructions in the prompt always sees all of the
    image.
    """
    return adapt_images(body, {"input_fidelity": ("low", "high") if is_told else ("low",)})


def adapt_video(body: VideoBody, model: Model) -> AdaptedRequest:
    """Reads a request for a video. A length that the model cannot make is a fault, or gives way to the nearest."""
    adapter = _RequestAdapter(body)
    if body.n not in (None, 1):
        adapter.refuse("n", f"one video a request, not {body.n}; POST /v1/jobs makes several")
    if body.seconds is not None:
        adapter.say("num_frames", "seconds", _frames(body, model, float(body.seconds), adapter))
    return adapter.adapted()


def _frames(body: VideoBody, model: Model, wanted_s: float, adapter: _RequestAdapter) -> int | None:
    """Returns how many frames of the model's grid come nearest; None if fps is refused anyhow."""
    allowed, fps = model.num_frames, model.fps
    assert allowed is not None
    assert fps is not None
    shown = fps.default if body.fps is None else body.fps
    if not fps.holds(shown):
        return None
    frames = allowed.nearest(wanted_s * shown)
    if abs(frames - wanted_s * shown) > (allowed.multiple or 1) / 2:
        lengths = f"{allowed.min / shown:g} to {allowed.max / shown:g} for model {model.id} at {shown} frames a second"
        if body.strict:
            adapter.refuse("seconds", f"must be {lengths}, not {body.seconds}")
        else:
            adapter.warn(f"seconds: must be {lengths}, not {body.seconds}; {frames / shown:g} was used")
    return frames


class _RequestAdapter:
    """What both kinds of request have in common."""

    def __init__(self, body: OpenAIBody) -> None:
        self._body = body
        self._fields: dict[str, Any] = {}
        self._written: dict[str, str] = {}
        self._warnings: list[str] = []
        self._faults: list[InvalidParameter] = []
        if body.size not in (None, "auto"):
            assert body.size is not None
            for name, pixels in zip(("width", "height"), body.size.split("x"), strict=True):
                self.say(name, "size", int(pixels))
        self._fields["nag"] = self._nag()
        for name in ("user", "safety_identifier"):
            if getattr(body, name) is not None:
                self._warnings.append(f"{name} was left out: it is not kept")

    def adapted(self) -> AdaptedRequest:
        body = self._body.model_copy(update=self._fields)
        return AdaptedRequest(body, self._written, tuple(self._warnings), tuple(self._faults))

    def refuse(self, name: str, message: str) -> None:
        """Notes a fault of the parameter `name`."""
        self._faults.append(InvalidParameter(f"{name}: {message}", param=name))

    def warn(self, message: str) -> None:
        """Notes a warning."""
        self._warnings.append(message)

    def say(self, name: str, written: str, value: int | None) -> None:
        """Sets our field `name`, which the caller wrote by another name. It is a fault to send both."""
        if getattr(self._body, name) is not None:
            self.refuse(written, f"says the same as {name}; send one")
        self._written[name] = written
        self._fields[name] = value

    def leave_out(self, name: str, why: str) -> None:
        """Notes a fault, or a warning if the request is lenient."""
        if self._body.strict:
            self._faults.append(UnsupportedParameter(f"{name}: {why}", param=name))
        else:
            self.warn(f"{name} was left out: {why}")

    def _nag(self) -> NAGBody | None:
        body, names = self._body, (*NAG_BOUNDS, *FORMER_NAMES, "method", "negative_prompt")
        flat = {name: value for name in names if (value := getattr(body, f"nag_{name}")) is not None}
        if not flat:
            return body.nag
        for name in flat:
            if body.nag is not None and getattr(body.nag, name) is not None:
                self.refuse(f"nag_{name}", f"says the same as nag.{name}; send one")
            self._written[f"nag.{name}"] = f"nag_{name}"
        if body.nag is None:
            self._written["nag"] = f"nag_{next(iter(flat))}"
        return (body.nag or NAGBody()).model_copy(update=flat)
