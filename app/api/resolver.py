"""Resolves a request against the catalog: fills in every default and checks every value against the model.

Pure except for the job's id, and for the seed that is drawn if the request has none.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import uuid4

from app.api.inputs.sizes import nearest_size
from app.api.model_selection import find_model
from app.api.requests.body import SEED_MAX
from app.api.requests.generation import STRENGTH, GenerationBody, NAGBody
from app.catalog import NAG_BOUNDS, Catalog, Model, Range, RegisteredLora
from app.errors import InvalidParameter, UnsupportedParameter, merge_errors
from app.formats import FORMATS, VIDEO_CODECS, VIDEOS
from app.jobs import FORMER_NAMES, Generation, Guidance, InputRole, Job, LoraUse, Priority

__all__ = ["NO_LORAS", "resolve"]

#: A drawn seed stays below this, so that it survives a JSON reader whose numbers are doubles.
DRAWN_SEEDS = 2**32

#: Roles of files that are changed as far as a request's strength goes.
WITH_STRENGTH = frozenset({InputRole.IMAGE, InputRole.VIDEO})

#: Without uploaded ones.
NO_LORAS: Mapping[str, RegisteredLora] = {}
#: LoRAs that an error names.
LORAS_SHOWN = 20
#: Longest side for which a lenient request gets the nearest size.
SIDE_MAX_PX = 1_000_000

Number = TypeVar("Number", int, float)


def resolve(
    asked: GenerationBody,
    catalog: Catalog,
    *,
    written: Mapping[str, str] | None = None,
    warnings: tuple[str, ...] = (),
    uploaded: Mapping[str, RegisteredLora] = NO_LORAS,
    roles: Sequence[InputRole] = (),
    alias: str | None = None,
    faults: Sequence[InvalidParameter] = (),
) -> Job:
    """Returns the job that `asked` means, without the files that it starts from; `roles` are theirs.

    `written` maps a field's name here to the one the caller wrote (`nag.scale` → `nag_scale`), for the errors.
    `uploaded` has the LoRAs that the caller may name in addition to the catalog's; they go before those of the same id.
    `alias` is the name that the request used for the model; `faults` are what is known to be wrong with it.
    Raises InvalidParameter for an unknown model, and one for all that is wrong with the request: values that the model
    cannot take, parameters that it cannot honour. With `strict` false a value gives way to the nearest that the model
    takes, and a parameter is left out; both become warnings.
    """
    model = find_model(catalog, asked.model, roles=roles)
    loras = {**catalog.loras, **uploaded}
    return _Resolver(
        asked, model, dict(written or {}), catalog, loras, list(warnings), roles, alias, list(faults)
    ).run()


@dataclass
class _Resolver:
    asked: GenerationBody
    model: Model
    written: dict[str, str]
    catalog: Catalog
    loras: Mapping[str, RegisteredLora]
    warnings: list[str] = field(default_factory=list)
    roles: Sequence[InputRole] = ()
    alias: str | None = None
    faults: list[InvalidParameter] = field(default_factory=list)

    def run(self) -> Job:
        """Raises InvalidParameter with all faults."""
        self._read_steps()
        asked, model = self.asked, self.model
        width, height = self._size()
        guidance_scale = self._in_range("guidance_scale", asked.guidance_scale, model.guidance_scale)
        output_format = self._format()
        n = asked.n or 1
        generation = Generation(
            model=model.id,
            prompt=self._text("prompt", asked.prompt),
            negative_prompt=self._optional_text("negative_prompt", asked.negative_prompt),
            seed=self._seed(n),
            num_inference_steps=self._in_range(
                "num_inference_steps", asked.num_inference_steps, model.num_inference_steps
            ),
            guidance_scale=guidance_scale,
            width=width,
            height=height,
            num_frames=self._of_a_video("num_frames", asked.num_frames, model.num_frames),
            fps=self._of_a_video("fps", asked.fps, model.fps),
            video_codec=self._codec(),
            embed_metadata=asked.embed_metadata,
            n=n,
            output_format=output_format,
            output_compression=self._compression(output_format),
            nag=self._guidance(cfg=guidance_scale > 1),
            previews=self._previews(),
            strength=self._strength(),
            strict=asked.strict,
            loras=self._lora_uses(),
            alias=self.alias,
        )
        if self.faults:
            raise merge_errors(self.faults)
        return Job(
            id=f"job_{uuid4().hex}", request=generation, warnings=tuple(self.warnings),
            priority=asked.priority or Priority.NORMAL,
        )  # fmt: skip

    def _name(self, name: str) -> str:
        return self.written.get(name, name)

    def _unsupported(self, name: str, message: str) -> None:
        if self.asked.strict:
            self.faults.append(UnsupportedParameter(f"{self._name(name)}: {message}", param=self._name(name)))
        else:
            self.warnings.append(f"{self._name(name)} was left out: {message}")

    def _refuse(self, name: str, message: str, *, code: str | None = None) -> None:
        """Notes a fault that a lenient request has as well; `name` is the caller's."""
        self.faults.append(InvalidParameter(f"{name}: {message}", param=name, code=code))

    def _read_steps(self) -> None:
        """Reads `steps`, another name of num_inference_steps."""
        steps, other = self.asked.steps, self.asked.num_inference_steps
        if steps is None:
            return
        if other is not None:
            self._refuse("steps", "says the same as num_inference_steps; send one")
        self.asked = self.asked.model_copy(update={"num_inference_steps": steps})
        self.written["num_inference_steps"] = "steps"

    def _size(self) -> tuple[int, int]:
        asked, model = self.asked, self.model
        width = model.width.default if asked.width is None else asked.width
        height = model.height.default if asked.height is None else asked.height
        is_made = model.width.holds(width) and model.height.holds(height)
        if asked.strict or is_made or min(width, height) < 1 or max(width, height) > SIDE_MAX_PX:
            return (
                self._in_range("width", asked.width, model.width), self._in_range("height", asked.height, model.height)
            )  # fmt: skip
        nearest = nearest_size(width, height, model)
        name = self._name("width" if asked.width is not None else "height")
        self.warnings.append(
            f"{name}: model {model.id} makes no {width}x{height}; the nearest, {nearest[0]}x{nearest[1]}, was used"
        )
        return nearest

    def _in_range(self, name: str, value: Number | None, allowed: Range[Number]) -> Number:
        if value is None or allowed.holds(value):
            return allowed.default if value is None else value
        written = self._name(name)
        if self.asked.strict or (isinstance(value, float) and not math.isfinite(value)):
            self._refuse(written, f"must be {allowed} for model {self.model.id}, not {value}{_off(name, value)}")
            return allowed.default
        within = min(max(value, allowed.min), allowed.max)
        nearest = within if allowed.multiple is None else allowed.nearest(within)
        self.warnings.append(f"{written}: model {self.model.id} takes {allowed}, not {value}; {nearest} was used")
        return nearest

    def _of_a_video(self, name: str, value: int | None, allowed: Range[int] | None) -> int | None:
        if allowed is not None:
            return self._in_range(name, value, allowed)
        if value is not None:
            self._unsupported(name, f"model {self.model.id} generates images, not videos")
        return None

    def _codec(self) -> str | None:
        if self.model.kind == "video":
            return self.asked.video_codec or VIDEO_CODECS[0]
        if self.asked.video_codec is not None:
            self._unsupported("video_codec", f"model {self.model.id} generates images, not videos")
        return None

    def _previews(self) -> int:
        if self.asked.previews and self.model.kind == "video":
            self._unsupported("previews", "not supported for video models")
            return 0
        return self.asked.previews or 0

    def _strength(self) -> float | None:
        if WITH_STRENGTH & set(self.roles):
            return STRENGTH if self.asked.strength is None else self.asked.strength
        if self.asked.strength is not None:
            self._unsupported("strength", "the request has no image or video that is changed by a share of the steps")
        return None

    def _format(self) -> str:
        asked, possible = self.asked.output_format, FORMATS[self.model.kind]
        if asked is not None and asked not in possible:
            self._unsupported("output_format", f"model {self.model.id} makes {' or '.join(possible)}, not {asked}")
            asked = None
        return asked or possible[0]

    def _text(self, name: str, text: str) -> str:
        most = self.model.prompt_max_chars
        if len(text) > most:
            self._refuse(self._name(name), f"model {self.model.id} takes at most {most} characters, not {len(text)}")
        return text

    def _optional_text(self, name: str, text: str | None) -> str | None:
        return None if text is None else self._text(name, text)

    def _seed(self, n: int) -> int:
        seed = self.asked.seed
        if seed is None:
            return secrets.randbelow(DRAWN_SEEDS)
        if seed + n - 1 > SEED_MAX:
            self._refuse(self._name("seed"), f"the last of {n} would exceed {SEED_MAX}")
        return seed

    def _compression(self, output_format: str) -> int:
        asked = self.asked.output_compression
        if output_format == "png" and asked not in (None, 100):
            self._unsupported("output_compression", "a png is lossless; ask for jpeg or webp")
            asked = None
        if output_format in VIDEOS and asked not in (None, 100):
            self._unsupported("output_compression", "a video's quality is fixed")
            asked = None
        return 100 if asked is None else asked

    def _guidance(self, *, cfg: bool) -> Guidance | None:
        """NAG as asked for by `nag`, or by a bare negative prompt where NAG is what honours one."""
        asked, defaults = self.asked, self.model.nag
        nag = asked.nag
        if nag is not None and nag.negative_prompt is None and nag.model_fields_set == {"negative_prompt"}:
            nag = None  # a blank text and no number: nothing is asked for
        if nag is None and (asked.negative_prompt is None or cfg):
            return None
        if defaults is None:
            if nag is not None:
                self._unsupported("nag", f"model {self.model.id} does not support NAG")
            if asked.negative_prompt is not None and not cfg:
                self._unsupported(
                    "negative_prompt", f"without NAG, model {self.model.id} needs a guidance_scale above 1 to honour it"
                )
            return None
        own = None if nag is None else self._optional_text("nag.negative_prompt", nag.negative_prompt)
        if own is not None and asked.negative_prompt is not None and not cfg:
            own_name, other = self._name("nag.negative_prompt"), self._name("negative_prompt")
            self.warnings.append(f"{other} was left out: {own_name} goes before it, and guidance_scale is 1")
        numbers = {name: getattr(nag, name, None) for name in NAG_BOUNDS} | self._by_former_names(nag)
        bounded = {name: self._bounded(name, value, getattr(defaults, name)) for name, value in numbers.items()}
        if 0 < bounded["end"] <= bounded["start"]:
            start, end = self._name("nag.start"), self._name("nag.end")
            self._refuse(start, f"must be below {end}, got {bounded['start']:g} and {bounded['end']:g}")
        return Guidance(
            **bounded,
            method=getattr(nag, "method", None) or defaults.method,
            negative_prompt=own if own is not None else asked.negative_prompt or "",
        )

    def _lora_uses(self) -> tuple[LoraUse, ...]:
        asked, model = self.asked.loras or (), self.model
        if asked and not model.request_loras:
            self._unsupported("loras", f"model {model.id} takes none")
            return ()
        uses: list[LoraUse] = []
        for index, use in enumerate(asked):
            name = self._name("loras")
            param = f"{name}.{index}.id"
            lora = self.loras.get(use.id)
            if lora is None:
                self._refuse(param, f"no LoRA {use.id!r}; {self._taken()}", code="lora_not_found")
                continue
            if not self.catalog.takes(model, lora):
                self._refuse(param, f"{use.id} is a LoRA for {lora.base}; {self._taken()}", code="wrong_base")
                continue
            if any(lora.use_id == other.id for other in uses):
                self._refuse(param, f"{use.id} is there twice; give it one scale")
            uses.append(LoraUse(lora.use_id, self._lora_scale(f"{name}.{index}.scale", use.scale, lora)))
        return tuple(uses)

    def _lora_scale(self, param: str, value: float | None, lora: RegisteredLora) -> float:
        if value is not None and not lora.scale.holds(value):
            self._refuse(param, f"must be {lora.scale} for {lora.id}, got {value:g}")
        return float(lora.scale.default if value is None else value)

    def _taken(self) -> str:
        names = sorted({lora.id for lora in self.loras.values() if self.catalog.takes(self.model, lora)})
        more = f" and {len(names) - LORAS_SHOWN} more" if len(names) > LORAS_SHOWN else ""
        return f"model {self.model.id} takes {', '.join(names[:LORAS_SHOWN]) or 'none that is registered'}{more}"

    def _by_former_names(self, nag: NAGBody | None) -> dict[str, float]:
        """Returns the numbers sent under a former name. Raises InvalidParameter if the present one was sent with
        another.
        """
        numbers = {}
        for former, name in FORMER_NAMES.items():
            value, other = getattr(nag, former, None), getattr(nag, name, None)
            if value is None:
                continue
            written = self._name(f"nag.{former}")
            present = self._name(f"nag.{name}") if other is not None else written.replace(former, name)
            if other not in (None, value):
                self._refuse(written, f"is a former name of {present}; got {value} and {other}, send one")
                continue
            self.warnings.append(f"{written} is deprecated; send {present}")
            self.written = {**self.written, f"nag.{name}": written}
            numbers[name] = value
        return numbers

    def _bounded(self, name: str, value: float | None, default: float) -> float:
        if value is None:
            return default
        low, high = NAG_BOUNDS[name]
        if not low <= value <= high:
            written = self._name(f"nag.{name}")
            self._refuse(written, f"must be {low:g} to {high:g}, not {value}{_off(name, value)}")
        return float(value)


def _off(name: str, value: float) -> str:
    """Says at which value guidance is off, for those who know 0 as that."""
    return "; 1 is off" if name in ("scale", "guidance_scale") and value < 1 else ""
