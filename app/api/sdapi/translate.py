"""A request of the web UI's API as one of this service, and what it goes without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.api.inputs.sizes import nearest_size
from app.api.openai.request_adapter import AdaptedRequest
from app.api.requests.generation import N_MAX, PREVIEWS_MAX, STRENGTH, GenerationBody
from app.api.sdapi.prompts import parse_prompt, syntax_warnings
from app.api.sdapi.schemas import Img2ImgBody, SdapiBody, Txt2ImgBody
from app.catalog import Model
from app.errors import InvalidParameter, UnsupportedParameter
from app.jobs import InputRole

__all__ = ["PARAMETERS", "Translation", "chosen_model", "translate", "unknown_options"]

#: A share of the steps; 0 would run none.
STRENGTH_MIN = 0.001
#: Settings of one request that name the model, and that ask for previews.
CHECKPOINT, LIVE_PREVIEWS = "sd_model_checkpoint", "live_previews_enable"
#: Our names to those of the request, for errors.
WRITTEN = {
    "num_inference_steps": "steps",
    "guidance_scale": "cfg_scale",
    "strength": "denoising_strength",
    "n": "batch_size",
    "model": f"override_settings.{CHECKPOINT}",
}
#: The value of resize_mode that is honoured, and how far proportions may differ before something is cropped.
CROP, PROPORTIONS_TOLERANCE = 1, 0.01
AUTOMATIC = ("", "automatic", "default", "none")
NAMES_SHOWN, NAME_MAX_CHARS = 20, 60

Neutral = Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Omission:
    """Fields that cannot be honoured, the values besides null that ask for nothing, and the reason."""

    fields: Neutral
    reason: str


LEFT_OUT: tuple[Omission, ...] = (
    Omission(
        {
            "sampler_name": AUTOMATIC,
            "sampler_index": AUTOMATIC,
            "scheduler": AUTOMATIC,
            "eta": (0, 1),
            "s_min_uncond": (0,),
            "s_churn": (0,),
            "s_tmax": (0,),
            "s_tmin": (0,),
            "s_noise": (1,),
        },
        "each model has its own scheduler",
    ),
    Omission(
        {"subseed_strength": (0,), "seed_resize_from_h": (-1, 0), "seed_resize_from_w": (-1, 0)},
        "seeds have no variations",
    ),
    Omission({"styles": ([],)}, "there are no stored styles; say it in the prompt"),
    Omission({"restore_faces": (False,)}, "there is no face restoration"),
    Omission({"tiling": (False,)}, "images do not tile"),
    Omission({"enable_hr": (False,)}, "there is no second pass; ask for the final width and height"),
    Omission({"refiner_checkpoint": ("", "none")}, "there is no refiner"),
    Omission({"clip_skip": (0, 1)}, "each model reads its text encoders as it was trained"),
    Omission({"distilled_cfg_scale": ()}, "it is part of the model's entry"),
    Omission({"initial_noise_multiplier": (1,)}, "it has no counterpart"),
    Omission({"include_init_images": (False,)}, "the answer does not repeat images"),
)
#: The same, of requests with a mask.
LEFT_OUT_OF_MASKED: tuple[Omission, ...] = (
    Omission({"mask_blur": (0,), "mask_blur_x": (0,), "mask_blur_y": (0,)}, "a mask has sharp edges"),
    Omission({"inpainting_fill": (1,)}, "masked parts start from the image"),
    Omission({"inpaint_full_res": (False, 0)}, "the whole image is denoised"),
)
#: Fields that mean nothing here by themselves: they go with others, or are about the web UI's own files and tasks.
MEANINGLESS = (
    "comments", "denoising_strength", "do_not_save_grid", "do_not_save_samples", "firstphase_height",
    "firstphase_width", "force_task_id", "hr_additional_modules", "hr_cfg", "hr_checkpoint_name",
    "hr_distilled_cfg", "hr_negative_prompt", "hr_prompt", "hr_resize_x", "hr_resize_y", "hr_sampler_name",
    "hr_scale", "hr_scheduler", "hr_second_pass_steps", "hr_upscaler", "image_cfg_scale",
    "inpaint_full_res_padding", "mask_round", "override_settings_restore_afterwards", "refiner_switch_at",
    "resize_mode", "script_args", "subseed",
)  # fmt: skip
SETTINGS: Neutral = {
    CHECKPOINT: (),
    LIVE_PREVIEWS: (True, False),
    "sd_vae": AUTOMATIC,
    "CLIP_stop_at_last_layers": (0, 1),
    "samples_format": ("png",),
    "enable_pnginfo": (True,),
    "eta_noise_seed_delta": (0,),
    "forge_additional_modules": ([],),
    "return_grid": (False,),
}
#: Fields that would change what an image shows.
REFUSED: Mapping[str, str] = {
    "script_name": "there are no scripts",
    "infotext": "send the fields themselves",
    "firstpass_image": "send it to img2img",
    "latent_mask": "send it as mask",
}
#: Scripts that refine an image, and do not change what it shows; names in lower case.
REFINING = (
    "adetailer", "dynamic thresholding (cfg scale fix)", "extra options", "freeu", "kohya hrfix", "never oom",
    "perturbed attention guidance", "refiner", "sampler", "seed", "self attention guidance", "soft inpainting",
    "tiled vae",
)  # fmt: skip

#: Fields that are known, and those of them that no body declares.
UNDECLARED = frozenset(
    {*MEANINGLESS, *REFUSED, *(name for group in (*LEFT_OUT, *LEFT_OUT_OF_MASKED) for name in group.fields)}
)
PARAMETERS = UNDECLARED | Txt2ImgBody.model_fields.keys() | Img2ImgBody.model_fields.keys()


@dataclass(frozen=True)
class Translation:
    """`body` is the request in our own words, with the numbers as they were sent; `adapt` fits them to the model."""

    asked: SdapiBody
    body: GenerationBody
    warnings: tuple[str, ...]
    faults: tuple[InvalidParameter, ...] = ()

    def adapt(
        self, model: Model, first: InputRole | None = None, image_size: tuple[int, int] | None = None
    ) -> AdaptedRequest:
        """Fits the numbers to the model. `first` and `image_size` are the role and the size of the image that the
        request starts from; the size is None if it is not known yet.
        """
        warnings = list(self.warnings)
        size = self._size(model)
        if size and first is InputRole.IMAGE and image_size is not None:
            warnings += self._cropped(nearest_size(size["width"], size["height"], model), image_size)
        fields = {
            "model": model.id,
            **size,
            "guidance_scale": self._guidance_scale(model, warnings),
            "strength": self.body.strength if first is InputRole.IMAGE or self._names_strength else None,
        }
        return AdaptedRequest(self.body.model_copy(update=fields), WRITTEN, tuple(warnings), self.faults)

    @property
    def _names_strength(self) -> bool:
        return isinstance(self.asked, Img2ImgBody) and self.asked.denoising_strength is not None

    def _size(self, model: Model) -> dict[str, int]:
        """Returns nothing for a request without a size: it gets the model's default, or the image's proportions."""
        asked = self.asked
        if asked.width is None and asked.height is None:
            return {}
        return {"width": asked.width or model.width.default, "height": asked.height or model.height.default}

    def _cropped(self, size: tuple[int, int], image: tuple[int, int]) -> list[str]:
        width, height = size
        is_stretched = abs(width * image[1] / (height * image[0]) - 1) > PROPORTIONS_TOLERANCE
        if not is_stretched or getattr(self.asked, "resize_mode", None) == CROP:
            return []
        return [f"resize_mode: the image of {_by(image)} was cropped to the proportions of {_by((width, height))}"]

    def _guidance_scale(self, model: Model, warnings: list[str]) -> float | None:
        """Returns the scale for a model whose default is CFG, or that has no NAG. CFG would harm the images of the
        others, and NAG honours their negative prompt at a fraction of the cost.
        """
        sent, allowed = self.asked.cfg_scale, model.guidance_scale
        if sent is None:
            return None
        if allowed.is_fixed or (model.nag is not None and allowed.default <= 1):
            if sent not in (0, 1):
                has_nag = "; NAG honours the negative prompt" if model.nag is not None else ""
                warnings.append(f"cfg_scale was left out: model {model.id} is used without CFG{has_nag}")
            return None
        return sent


def chosen_model(asked: SdapiBody) -> str | None:
    """Returns the model that a request names. Raises InvalidParameter."""
    name = (asked.override_settings or {}).get(CHECKPOINT)
    if not name:
        return None
    if not isinstance(name, str) or name != name.encode(errors="ignore").decode():
        raise InvalidParameter(f"{WRITTEN['model']}: must be a valid text", param=WRITTEN["model"])
    return name


def unknown_options(sent: Mapping[str, Any], fixed: Mapping[str, Any]) -> list[str]:
    """Names the options that are sent with another value than they have; null means none."""
    names = [name for name, value in sent.items() if value is not None and value != fixed.get(name)]
    return [_warning(names, "not an option that can be set")] if names else []


def translate(asked: SdapiBody, model: str | None) -> Translation:
    """Reads a request that is made by this model, None for the default. What would change what the image shows is a
    fault.
    """
    faults: list[InvalidParameter] = [
        UnsupportedParameter(f"{name}: {reason}; leave it out", param=name)
        for name, reason in REFUSED.items()
        if getattr(asked, name, None)
    ]
    warnings = list(_left_out(asked))
    warnings += _left_out_settings(asked)
    warnings += _left_out_scripts(asked, faults)
    prompt = parse_prompt(asked.prompt or "", has_tags=not asked.disable_extra_networks)
    warnings += syntax_warnings("prompt", prompt.text)
    warnings += syntax_warnings("negative_prompt", asked.negative_prompt or "")
    n = (asked.batch_size or 1) * (asked.n_iter or 1)
    if n > N_MAX:
        warnings.append(f"batch_size and n_iter: {N_MAX} images are the most of one request, for {n}")
    settings = asked.override_settings or {}
    body = GenerationBody(
        model=model,
        prompt=prompt.text,
        negative_prompt=asked.negative_prompt,
        seed=None if asked.seed is None or asked.seed < 0 else asked.seed,
        num_inference_steps=asked.steps,
        guidance_scale=asked.cfg_scale,
        width=asked.width,
        height=asked.height,
        n=min(n, N_MAX),
        output_format="png",
        nag=asked.nag,
        loras=list(prompt.loras) or None,
        strength=_strength(asked, warnings),
        previews=PREVIEWS_MAX if settings.get(LIVE_PREVIEWS) is True else None,
        strict=False,
    )
    return Translation(asked, body, tuple(warnings), (*faults, *prompt.faults))


def _strength(asked: SdapiBody, warnings: list[str]) -> float | None:
    """Returns the strength. In text-to-image denoising_strength belongs to the second pass, which there is not."""
    if not isinstance(asked, Img2ImgBody):
        return None
    if asked.denoising_strength == 0:
        warnings.append("denoising_strength: one step is the least that is run, for 0")
    return STRENGTH if asked.denoising_strength is None else max(asked.denoising_strength, STRENGTH_MIN)


def _left_out(asked: SdapiBody) -> list[str]:
    groups = LEFT_OUT
    if isinstance(asked, Img2ImgBody) and asked.mask:
        groups += LEFT_OUT_OF_MASKED
    warnings = []
    for group in groups:
        names = [name for name, neutral in group.fields.items() if not _is_neutral(getattr(asked, name, None), neutral)]
        if names:
            warnings.append(_warning(names, group.reason))
    sent = (asked.model_extra or {}).items()
    unknown = [name for name, value in sent if name not in UNDECLARED and value not in (None, "", False, [], {})]
    if unknown:
        warnings.append(_warning(unknown, "not known here"))
    return warnings


def _left_out_settings(asked: SdapiBody) -> list[str]:
    settings = asked.override_settings or {}
    names = [
        f"override_settings.{name}"
        for name, value in settings.items()
        if name != CHECKPOINT and not _is_neutral(value, SETTINGS.get(name, ()))
    ]
    return [_warning(names, "not a setting of one request here")] if names else []


def _left_out_scripts(asked: SdapiBody, faults: list[InvalidParameter]) -> list[str]:
    """Returns a warning of scripts that only refine an image. One that may change what it shows is added to the
    faults.
    """
    names = []
    for name, script in (asked.alwayson_scripts or {}).items():
        if not _is_on(script):
            continue
        if name.lower() not in REFINING:
            param = f"alwayson_scripts.{_shorten(name)}"
            faults.append(UnsupportedParameter(f"{param}: there is no such script; leave it out", param=param))
        else:
            names.append(f"alwayson_scripts.{name}")
    return [_warning(names, "there are no scripts")] if names else []


def _is_on(script: Any) -> bool:
    """Whether some argument of a script asks for something: clients send those of all scripts, and switch most off."""
    arguments = script.get("args") if isinstance(script, dict) else script
    if isinstance(arguments, dict):
        arguments = [arguments]
    if not isinstance(arguments, list) or not arguments or arguments[0] is False:
        return False
    units = [argument for argument in arguments if isinstance(argument, dict)]
    if len(units) == len(arguments):
        return any(unit.get("enabled", True) is not False for unit in units)
    return True


def _is_neutral(value: Any, neutral: Sequence[Any]) -> bool:
    return value is None or (value.strip().lower() if isinstance(value, str) else value) in neutral


def _warning(names: Sequence[str], reason: str) -> str:
    shown = ", ".join(_shorten(name) for name in names[:NAMES_SHOWN])
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{shown}{more} {'was' if len(names) == 1 else 'were'} left out: {reason}"


def _shorten(name: str) -> str:
    """Shortens a name that a client has made up."""
    return name[:NAME_MAX_CHARS]


def _by(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))
