"""Wan and what is built on it: cross attention to UMT5's tokens, whose keys do not change with the timestep.

Image-to-video forms of 2.1 attend to an image too, by keys of its own that stay as they are. Wan 2.2 denoises with two
models in turn, of which either may be absent.

SkyReels-V2 may denoise each frame by its own timestep: the noisiest decides whether guidance runs. In Helios only the
frames being denoised read the prompt, and the history does not. AnyFlow's FAR form reads each finished chunk once more
to keep its keys for the chunks that follow. Nothing is denoised there, so those calls stay plain.
"""

from __future__ import annotations

from typing import Any, ClassVar

from nag.families.arguments import NUMBERS, REPEATED, ROWS, SHARED, STATE, Argument
from nag.families.family import Family
from nag.guidance_state import GuidanceState
from nag.processor_swap import original
from nag.processors import WanSplitProcessor

__all__ = ["AnyFlow", "Helios", "SkyReelsV2", "Wan"]


class Wan(Family):
    name = "Wan"
    models = "2.1, 2.2: T2V, I2V, TI2V, VACE, Animate; ChronoEdit, Lucy-Edit"
    source = "arXiv 2505.21179, table 5"
    attention = "cross"
    denoiser_types: ClassVar[tuple[str, ...]] = (
        "WanTransformer3DModel",
        "WanVACETransformer3DModel",
        "WanAnimateTransformer3DModel",
        "ChronoEditTransformer3DModel",
    )
    attention_modules = ("blocks.*.attn2", "vace_blocks.*.attn2")
    processor_class = WanSplitProcessor
    processors: ClassVar[tuple[str, ...]] = ("WanAttnProcessor", "WanAttnProcessor2_0")
    context_parallel: ClassVar[tuple[str, ...]] = ("WanTransformer3DModel", "ChronoEditTransformer3DModel")
    caches_text_kv = True
    arguments: ClassVar[dict[str, Argument]] = {
        **dict.fromkeys(("control_hidden_states", "pose_hidden_states", "face_pixel_values"), ROWS),
        "control_hidden_states_scale": SHARED,
    }
    cfg = "separate"
    encoded = ("embeds", "negative_embeds")


class SkyReelsV2(Wan):
    name = "SkyReels-V2"
    models = "T2V, I2V, diffusion forcing"
    source = "as Wan 2.1, not tuned"
    denoiser_types = ("SkyReelsV2Transformer3DModel",)
    arguments: ClassVar[dict[str, Argument]] = {**Wan.arguments, "fps": REPEATED}
    processors = ("SkyReelsV2AttnProcessor", "SkyReelsV2AttnProcessor2_0")

    def timestep(self, pipe: Any, call: dict[str, Any]) -> float:  # noqa: ARG002 (the pipeline tells a row of frames)
        return float(call["timestep"].max())


class Helios(Family):
    name = "Helios"
    models = "T2V, I2V, V2V, pyramid"
    source = "as Wan 2.1, not tuned"
    attention = "cross"
    denoiser_types = ("HeliosTransformer3DModel",)
    attention_modules = ("blocks.*.attn2",)
    processors = ("HeliosAttnProcessor",)
    context_parallel = denoiser_types
    caches_text_kv = True
    arguments: ClassVar[dict[str, Argument]] = {
        **dict.fromkeys(("latents_history_short", "latents_history_mid", "latents_history_long"), ROWS),
        "indices_hidden_states": SHARED,
        **dict.fromkeys([f"indices_latents_history_{length}" for length in ("short", "mid", "long")], SHARED),
    }
    cfg = "separate"

    def find_split_error(self, denoiser: Any) -> str | None:
        if not original(denoiser).config.is_amplify_history:
            return None
        return "with `is_amplify_history` diffusers counts the history's keys within each rank's part"


class AnyFlow(Family):
    name = "AnyFlow"
    models = "T2V; FAR: text, image and video to video"
    source = "as Wan 2.1, not tuned"
    attention = "cross"
    denoiser_types = ("AnyFlowTransformer3DModel", "AnyFlowFARTransformer3DModel")
    attention_modules = ("blocks.*.attn2",)
    processors = ("AnyFlowCrossAttnProcessor",)
    caches_text_kv = True
    arguments: ClassVar[dict[str, Argument]] = {"r_timestep": NUMBERS, "kv_cache_flag": STATE}
    join_note = "not of FAR, whose cache is state of one request"
    cfg = "batched"

    def rows(self, pipe: Any, state: GuidanceState, call: dict[str, Any]) -> slice | None:
        if (call.get("kv_cache_flag") or {}).get("is_cache_step"):
            return None
        return super().rows(pipe, state, call)
