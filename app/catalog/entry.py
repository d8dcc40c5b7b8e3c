"""One servable model, and what of an entry contradicts itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from app.catalog.inputs import Inputs, field_of
from app.catalog.loading import Autoencoder, Dtype, Lora, Scheduler, Size, Source, Weights
from app.catalog.ranges import NAGDefaults, Range
from app.catalog.speed import GGUF, Names, SpeedSettings
from app.jobs import InputRole

__all__ = ["Kind", "Model"]

Kind = Literal["image", "video"]

#: By kind of model, the roles of files that it can take.
ROLES: dict[Kind, frozenset[InputRole]] = {
    "image": frozenset({InputRole.IMAGE, InputRole.MASK, InputRole.REFERENCE}),
    "video": frozenset({InputRole.REFERENCE, InputRole.FIRST_FRAME, InputRole.LAST_FRAME, InputRole.VIDEO}),
}
#: Arguments of a pipeline call that a request or the worker decides; an entry's `call` cannot.
CHOSEN_HERE = frozenset(
    {
        "prompt", "negative_prompt", "generator", "num_inference_steps", "width", "height", "num_frames",
        "true_cfg_scale", "guidance_scale", "output_type", "return_dict", "num_images_per_prompt",
        "num_videos_per_prompt", "callback", "callback_steps", "callback_on_step_end",
        "callback_on_step_end_tensor_inputs", "image", "mask_image", "strength", "last_image", "video",
        "reference_images", "conditions",
    }
)  # fmt: skip


class Model(Source, SpeedSettings):
    """One servable model. `nag` is None where its attention cannot be guided; a video's frames are None for images.

    pipeline: its class in diffusers; absent, the one that the repository names.
    variant: the part of the weights' file names that chooses among several precisions.
    component_dtypes: of parts that are not kept in `dtype`.
    cfg: the pipeline's argument for classifier-free guidance, which a request's guidance_scale is passed as.
    embedded_guidance: passed as `guidance_scale` where that is not CFG but a number the distilled model is told.
    call: further arguments of every pipeline call.
    denoiser: weights for the denoiser that are not the repository's.
    vae: a VAE that is not the repository's.
    without: optional components of the pipeline that are neither downloaded nor loaded.
    profile: memory of a device, as "24gb"; quantization and offload are set so that the weights fit it.
    prompt_max_tokens: what the main text encoder reads of a prompt, special tokens included.
    inputs: the files that a request can start from. Diffusers' own pipelines for them use the parts of this one.
    request_loras: whether requests may name LoRAs; `lora` has those that are in force for every request.
    """

    id: str
    description: str
    pipeline: str | None = None
    family: str
    kind: Kind
    licence: str | None = None
    dtype: Dtype
    component_dtypes: dict[str, Dtype] = Field(default_factory=dict)
    variant: str | None = None
    denoiser: Weights | None = None
    vae: Autoencoder | None = None
    without: Names = ()
    lora: Annotated[tuple[Lora, ...], Field(strict=False)] = ()
    scheduler: Scheduler | None = None
    size: Size | None = None
    profile: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,3}gb$")] | None = None
    #: Loaded before anybody asks, where NAG_WARM does not say; a catalog's default always is.
    warm: bool = True
    num_inference_steps: Range[int]
    cfg: Literal["guidance_scale", "true_cfg_scale", "none"] = "guidance_scale"
    guidance_scale: Range[float]
    embedded_guidance: float | None = None
    width: Range[int]
    height: Range[int]
    num_frames: Range[int] | None = None
    fps: Range[int] | None = None  # shown a second; what is denoised does not depend on it
    prompt_max_chars: int = Field(ge=1)
    prompt_max_tokens: int | None = Field(default=None, ge=1)
    call: dict[str, Any] = Field(default_factory=dict)
    nag: NAGDefaults | None = None
    inputs: Inputs = Inputs()
    request_loras: bool = True

    @property
    def sources(self) -> dict[str, Source]:
        """Every place the model's files come from, by its key in the entry; that of the repository is empty."""
        sources: dict[str, Source | None] = {"": self, "denoiser": self.denoiser, "vae": self.vae}
        sources |= {f"lora.{index}": lora for index, lora in enumerate(self.lora)}
        return {key: source for key, source in sources.items() if source is not None}

    @property
    def default_cost(self) -> int:
        """The cost of an image or video with the defaults, in the units of app.jobs.Generation.cost."""
        frames = 1 if self.num_frames is None else self.num_frames.default
        return self.width.default * self.height.default * frames * (2 if self.guidance_scale.default > 1 else 1)

    @property
    def has_gguf(self) -> bool:
        """Whether the denoiser's weights are a GGUF file's."""
        return self.denoiser is not None and self.denoiser.weight_name.endswith(GGUF)

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        for name in ("num_frames", "fps"):
            value: Range[int] | None = getattr(self, name)
            if (value is not None) != (self.kind == "video"):
                raise ValueError(f"{name} is {'required' if value is None else 'unknown'} where kind is {self.kind}")
            if value is not None and value.min < 1:
                raise ValueError(f"{name}.min must be at least 1, not {value.min}")
        for role in self.inputs.roles:
            if role not in ROLES[self.kind]:
                raise ValueError(f"inputs.{field_of(role)}: a model of this kind ({self.kind}) takes none")
        for name in ("width", "height") if self.kind == "video" else ():
            size: Range[int] = getattr(self, name)
            if (size.multiple or 1) % 2 or (size.offset or 0) % 2:
                raise ValueError(f"{name}.multiple must be even: a video has one colour for 2x2 pixels")
        return self

    @model_validator(mode="after")
    def _guidance_is_one_thing(self) -> Self:
        scale = self.guidance_scale
        if scale.min < 1:
            raise ValueError(f"guidance_scale.min must be at least 1, which is off, not {scale.min:g}")
        if self.cfg == "none" and (scale.min, scale.max) != (1, 1):
            raise ValueError(f"guidance_scale must be 1 alone where cfg is none, not {scale}: it would be ignored")
        if self.cfg == "guidance_scale" and self.embedded_guidance is not None:
            raise ValueError("embedded_guidance is passed as guidance_scale, so cfg cannot be passed as that too")
        return self

    @model_validator(mode="after")
    def _call_leaves_the_request_its_choice(self) -> Self:
        for name in self.call.keys() & CHOSEN_HERE:
            raise ValueError(f"call.{name} is decided by each request or by the worker")
        for name in self.call.keys() & {"timesteps", "sigmas"}:
            steps, count = self.num_inference_steps, len(self.call[name])
            if (steps.min, steps.max) != (count, count):
                raise ValueError(f"call.{name} are {count} steps, so num_inference_steps must be {count}, not {steps}")
        return self

    @model_validator(mode="after")
    def _weights_agree(self) -> Self:
        is_quantized = self.quantization is not None and not self.quantization.is_cast
        if (is_quantized or self.has_gguf) and any(lora.fuse for lora in self.lora):
            raise ValueError("lora.fuse: quantized weights take no fused LoRA; set fuse = false")
        if is_quantized and self.denoiser is not None:
            raise ValueError("denoiser: other weights cannot be put into a quantized denoiser")
        if is_quantized and self.vae is not None and self.quantization and "vae" in self.quantization.components:
            raise ValueError("vae: another VAE cannot be quantized")
        if "default" in self.component_dtypes:
            raise ValueError("component_dtypes.default: that is dtype")
        return self

    @model_validator(mode="after")
    def _cache_knows_its_steps(self) -> Self:
        if self.cache is None or self.cache.method != "mag":
            return self
        steps = self.num_inference_steps
        if not steps.is_fixed:
            raise ValueError(f"cache: mag is calibrated for a number of steps, so there can be one alone, not {steps}")
        if "num_inference_steps" in self.cache.options:
            raise ValueError("cache.options.num_inference_steps: that is the entry's num_inference_steps")
        if self.inputs.image is not None or self.inputs.video is not None:
            raise ValueError("cache: mag counts the steps of whole schedules, and edits leave some out")
        return self

    @model_validator(mode="after")
    def _weights_can_be_split(self) -> Self:
        if self.parallel is None or self.parallel.tensor == 1:
            return self
        if self.request_loras:
            raise ValueError(
                "parallel: tensor splits weights, which take no LoRAs of requests; set request_loras = false"
            )
        if not all(lora.fuse for lora in self.lora):
            raise ValueError(
                "lora.fuse: parallel.tensor splits weights, which take no LoRA beside them; set fuse = true"
            )
        if self.has_gguf:
            raise ValueError("denoiser: parallel.tensor cannot split the quantized weights of a GGUF file")
        return self
