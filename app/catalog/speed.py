"""The settings of an entry that decide how fast its model runs and how much memory it takes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from app.catalog.table import CatalogTable

__all__ = ["Attention", "Names", "Parallelism", "Quantization", "SpeedSettings", "StepCache"]

#: TOML has arrays, not tuples.
Names = Annotated[tuple[str, ...], Field(strict=False)]

#: Attention backends by the names of diffusers' dispatcher, but for those of other devices (NPU, XLA).
Attention = Literal[
    "native", "_native_cudnn", "_native_efficient", "_native_flash", "_native_math", "flex", "xformers",
    "flash", "flash_hub", "flash_varlen", "flash_varlen_hub", "flash_4_hub", "_flash_3", "_flash_3_hub",
    "_flash_varlen_3", "_flash_3_varlen_hub", "aiter_fa2_hub",
    "sage", "sage_hub", "sage_blackwell_hub", "sage_varlen", "_sage_qk_int8_pv_fp8_cuda",
    "_sage_qk_int8_pv_fp8_cuda_sm90", "_sage_qk_int8_pv_fp16_cuda", "_sage_qk_int8_pv_fp16_triton",
]  # fmt: skip

#: Those that context parallelism can have and that give the log-sum-exp.
WITH_LSE = frozenset(
    {
        "_native_cudnn", "_native_flash", "flash", "flash_hub", "flash_varlen_hub", "_flash_3_hub",
        "_flash_3_varlen_hub", "sage", "sage_hub",
    }
)  # fmt: skip

#: Step caches of diffusers that keep one state per module instead of one per request.
ONE_STATE = ("pyramid", "faster")
#: Ending of a weights file whose matrices are quantized already.
GGUF = ".gguf"


class StepCache(CatalogTable):
    """Skips parts of the denoiser in steps that change little, by one of diffusers' step caches.

    options: of its configuration class in diffusers, by their names there.
    """

    method: Literal["first_block", "taylorseer", "mag", "pyramid", "faster"]
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_state_of_each_request(self) -> Self:
        if self.method in ONE_STATE:
            raise ValueError(
                f"method {self.method} keeps one state per module, which requests that run at the same time would "
                "share; use first_block, taylorseer or mag"
            )
        return self


class Quantization(CatalogTable):
    """Weights kept in fewer bits.

    Layerwise casting keeps float8 weights and casts those of a layer to the entry's dtype while the layer runs. The
    other methods need a package, which is asked for only if an entry uses it.
    """

    method: Literal["layerwise-fp8", "bitsandbytes-int8", "bitsandbytes-nf4", "torchao-int8", "torchao-fp8"]
    components: Names = Field(min_length=1)

    @property
    def package(self) -> str | None:
        """The package that must be installed."""
        return None if self.is_cast else self.method.partition("-")[0]

    @property
    def is_cast(self) -> bool:
        """Whether weights are loaded as they are, and cast afterwards."""
        return self.method == "layerwise-fp8"


class Parallelism(CatalogTable):
    """How the denoiser's calls are split over the devices of a worker.

    Attributes:
        ulysses: parts of the tokens, which are exchanged for parts of the heads in each attention.
        ring: parts of the tokens, whose queries attend to the keys of all parts.
        tensor: parts of the weights.

    """

    ulysses: int = Field(default=1, ge=1)
    ring: int = Field(default=1, ge=1)
    tensor: int = Field(default=1, ge=1)

    @property
    def devices(self) -> int:
        """How many devices the worker must have."""
        return self.ulysses * self.ring * self.tensor

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        if self.devices == 1:
            raise ValueError("ulysses, ring or tensor must be 2 or more; leave parallel out for one device")
        if self.tensor > 1 and self.ulysses * self.ring > 1:
            raise ValueError("tensor cannot be combined with ulysses or ring")
        return self


class SpeedSettings(CatalogTable):
    """How a model is computed and where its weights are; none of it is a request's choice.

    Attributes:
        attention: the backend of the denoiser's attention, by diffusers' name.
        cache: a step cache on the denoiser; its state is kept for each request.
        quantization: weights in fewer bits.
        compile: by torch.compile, the whole denoiser or each of its repeated blocks, at the first call of each shape.
        channels_last: convolutions with channels as the last dimension in memory.
        offload: weights wait in the host's memory, by whole components or by groups of layers.
        vae_tiling: decode in tiles, in less memory; a number does so only for images with a side above it, in pixels.
        parallel: the denoiser on several devices of one worker.

    """

    attention: Attention = "native"
    cache: StepCache | None = None
    quantization: Quantization | None = None
    compile: Literal["none", "denoiser", "blocks"] = "none"
    channels_last: bool = False
    offload: Literal["none", "model", "group"] = "none"
    vae_tiling: bool | Annotated[int, Field(ge=64)] = False
    parallel: Parallelism | None = None

    @property
    def is_compiled(self) -> bool:
        """Whether torch compiles the denoiser or parts of it."""
        return self.compile != "none"

    @model_validator(mode="after")
    def _can_be_combined(self) -> Self:
        if self.cache is not None and self.is_compiled:
            raise ValueError("cache: its steps differ in what they run, so compile must be none")
        if self.cache is not None and self.offload == "group":
            raise ValueError("cache: offload = group copies layers in the order of whole steps, so it skips none")
        method = None if self.quantization is None else self.quantization.method
        if method == "layerwise-fp8" and self.is_compiled:
            raise ValueError("quantization: layerwise-fp8 casts weights within each call, so compile must be none")
        if method is not None and method.startswith("bitsandbytes") and self.offload == "group":
            raise ValueError(f"quantization: the weights of {method} cannot be moved by layers; use offload = model")
        return self

    @model_validator(mode="after")
    def _can_be_parallel(self) -> Self:
        if self.parallel is None:
            return self
        for name, value in (("cache", self.cache), ("compile", self.is_compiled), ("offload", self.offload != "none")):
            if value:
                raise ValueError(f"parallel: a denoiser on several devices cannot have {name}; leave it out")
        if self.parallel.tensor > 1 and self.quantization is not None:
            raise ValueError("parallel: tensor splits weights as they are loaded, so it cannot have quantization")
        if self.parallel.ring > 1 and self.attention not in WITH_LSE:
            raise ValueError(
                f"parallel: ring merges parts by their log-sum-exp, which attention = {self.attention} does not give; "
                f"use one of {', '.join(sorted(WITH_LSE))}"
            )
        return self
