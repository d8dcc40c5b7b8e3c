"""The repositories that the hub entries name, with small random weights in the real layouts and file listings.

Listings are from model cards and public code that names the files; what a repository has beside the pipeline (README,
licence, single-file copies, other precisions) is there with a few bytes, and must not be downloaded.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import Qwen2VLImageProcessorPil

from app.catalog import Catalog, Model, Source
from app.settings import Settings
from tests.hub import pipelines
from tests.hub.server import Repository
from tests.hub.weights import kohya_unet, lightx2v_qwen, lightx2v_wan, peft, save_lora, write_spiece_model

__all__ = ["REPOSITORIES", "Layout", "small_size", "write_repositories"]

CARD = (".gitattributes", "README.md")


@dataclass(frozen=True)
class Layout:
    """A repository to be written.

    write: puts its files into a folder. others: names of files that the pipeline does not load. gated: needs a login.
    """

    write: Callable[[Path], None]
    others: Collection[str] = ()
    gated: bool = False


@dataclass(frozen=True)
class PipelineFiles:
    """A pipeline in the layout of `save_pretrained`.

    variants: precisions in which all weights are there. shard_size: of larger weights, that they are in several files.
    spiece: tokenizers that come as a SentencePiece model alone. index: changes to model_index.json.
    """

    make: Callable[[], Any]
    variants: tuple[str | None, ...] = (None,)
    shard_size: str = "10GB"
    spiece: Collection[str] = ()
    index: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, folder: Path) -> None:
        pipe = self.make()
        for variant in self.variants:
            pipe.save_pretrained(folder, variant=variant, max_shard_size=self.shard_size)
        for name in self.spiece:
            write_spiece_model(folder / name)
        path = folder / "model_index.json"
        tokenizers = {name: ["transformers", "T5Tokenizer"] for name in self.spiece}
        index = json.loads(path.read_text(encoding="utf-8")) | tokenizers
        path.write_text(json.dumps(index | dict(self.index)), encoding="utf-8")


def _qwen21(folder: Path) -> None:
    """A processor cannot be made without torchvision: its folder has the tokenizer's files and its own configs."""
    pipe = pipelines.qwen_image21_turbo()
    tokenizer = pipe.processor.tokenizer
    pipe.register_modules(processor=None)
    index = {"processor": ["transformers", "Qwen3VLProcessor"]}
    PipelineFiles(lambda: pipe, shard_size="40KB", index=index)(folder)
    tokenizer.save_pretrained(folder / "processor")
    for name in ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"):
        (folder / "processor" / name).write_text(json.dumps({"processor_class": "Qwen3VLProcessor"}))


def _qwen_edit(folder: Path) -> None:
    """Its processor reads images in few patches of 8 pixels, as its small text encoder takes them."""
    pipe = pipelines.qwen_image_edit()
    index = {"processor": ["transformers", "Qwen2VLProcessor"]}
    PipelineFiles(lambda: pipe, shard_size=FEW, index=index)(folder)
    pipe.tokenizer.save_pretrained(folder / "processor")
    Qwen2VLImageProcessorPil(patch_size=8, min_pixels=256, max_pixels=1024).save_pretrained(folder / "processor")


def _flux2_dev(folder: Path) -> None:
    index = {"tokenizer": ["transformers", "PixtralProcessor"]}
    PipelineFiles(pipelines.flux2_dev, shard_size="200KB", index=index)(folder)
    (folder / "tokenizer" / "processor_config.json").write_text(json.dumps({"processor_class": "PixtralProcessor"}))


def _ernie(folder: Path) -> None:
    index = {"pe": ["transformers", "Ministral3ForCausalLM"], "pe_tokenizer": ["transformers", "TokenizersBackend"]}
    PipelineFiles(pipelines.ernie_image_turbo, index=index)(folder)


def _vae(folder: Path) -> None:
    pipelines.fp16_vae().save_pretrained(folder)


def _lora(make: Callable[[], Any], layout: Any, *names: str, parts: tuple[str, ...] = ()) -> Callable[[Path], None]:
    """LoRAs of the pipeline's first denoiser, or of those of `parts`, a file each."""

    def write(folder: Path) -> None:
        pipe = make()
        first = "unet" if hasattr(pipe, "unet") else "transformer"
        for index, name in enumerate(names):
            save_lora(getattr(pipe, parts[index] if parts else first), folder / name, layout)

    return write


def _wan22_lightning(folder: Path) -> None:
    """The LoRAs of both denoisers, for text and for image to video."""
    for make, name in ((pipelines.wan_two, "T2V-A14B-4steps-lora-rank64-Seko-V1.1"),
                       (pipelines.wan22_i2v, "I2V-A14B-4steps-lora-rank64-Seko-V1")):  # fmt: skip
        names = [f"Wan2.2-{name}/{noise}_noise_model.safetensors" for noise in ("high", "low")]
        _lora(make, lightx2v_wan, *names, parts=("transformer", "transformer_2"))(folder)


def _lightning(folder: Path) -> None:
    state = pipelines.sdxl(1).unet.half().state_dict()
    for steps in (2, 4, 8):
        save_file(state, folder / f"sdxl_lightning_{steps}step_unet.safetensors")


def _flux(name: str) -> tuple[str, ...]:
    return (*CARD, "LICENSE.md", "ae.safetensors", f"{name}.safetensors", "grid.jpg")


def _sdxl(name: str) -> tuple[str, ...]:
    onnx = ("vae_decoder/model.onnx", "vae_encoder/model.onnx", "unet/model.onnx", "unet/model.onnx_data")
    return (*CARD, "LICENSE.md", f"{name}.safetensors", f"{name}_0.9vae.safetensors", *onnx)


#: Pipelines that make nothing smaller.
OF_64_PX = (
    "Flux2KleinPipeline", "Flux2Pipeline", "QwenImage21Pipeline", "QwenImageEditPlusPipeline", "LTXConditionPipeline",
    "LTX2Pipeline",
)  # fmt: skip
BOTH = (None, "fp16")
FEW = "60KB"

#: By name on the hub.
REPOSITORIES: dict[str, Layout] = {
    "black-forest-labs/FLUX.1-schnell": Layout(
        PipelineFiles(pipelines.flux_schnell, shard_size=FEW), _flux("flux1-schnell"), gated=True
    ),
    "black-forest-labs/FLUX.1-dev": Layout(
        PipelineFiles(pipelines.flux_dev, shard_size=FEW), _flux("flux1-dev"), gated=True
    ),
    "black-forest-labs/FLUX.1-Krea-dev": Layout(
        PipelineFiles(pipelines.flux_dev, shard_size=FEW), _flux("flux1-krea-dev"), gated=True
    ),
    "black-forest-labs/FLUX.1-Kontext-dev": Layout(
        PipelineFiles(pipelines.flux_kontext, shard_size=FEW), _flux("flux1-kontext-dev"), gated=True
    ),
    "black-forest-labs/FLUX.2-klein-4B": Layout(
        PipelineFiles(pipelines.flux2_klein), (*CARD, "LICENSE.md", "flux-2-klein-4b.safetensors")
    ),
    "black-forest-labs/FLUX.2-klein-9B": Layout(
        PipelineFiles(pipelines.flux2_klein, shard_size=FEW),
        (*CARD, "LICENSE.md", "flux-2-klein-9b.safetensors"),
        gated=True,
    ),
    "black-forest-labs/FLUX.2-dev": Layout(
        _flux2_dev, (*CARD, "LICENSE.txt", "ae.safetensors", "flux2-dev.safetensors"), gated=True
    ),
    "stabilityai/stable-diffusion-xl-base-1.0": Layout(
        PipelineFiles(pipelines.sdxl, BOTH),
        (*_sdxl("sd_xl_base_1.0"), "sd_xl_offset_example-lora_1.0.safetensors"),
    ),
    "stabilityai/sdxl-turbo": Layout(
        PipelineFiles(pipelines.sdxl, BOTH), (*_sdxl("sd_xl_turbo_1.0"), "sd_xl_turbo_1.0_fp16.safetensors")
    ),
    "madebyollin/sdxl-vae-fp16-fix": Layout(
        _vae, (*CARD, "diffusion_pytorch_model.bin", "sdxl.vae.safetensors", "sdxl_vae.safetensors")
    ),
    "tianweiy/DMD2": Layout(
        _lora(
            pipelines.sdxl, peft("unet"), "dmd2_sdxl_4step_lora_fp16.safetensors", "dmd2_sdxl_4step_lora.safetensors"
        ),
        (*CARD, "dmd2_sdxl_4step_unet_fp16.bin", "dmd2_sdxl_1step_unet_fp16.bin"),
    ),
    "ByteDance/SDXL-Lightning": Layout(
        _lightning, (*CARD, "sdxl_lightning_4step.safetensors", "sdxl_lightning_4step_lora.safetensors")
    ),
    "ByteDance/Hyper-SD": Layout(
        _lora(pipelines.sdxl, kohya_unet, "Hyper-SDXL-8steps-lora.safetensors"),
        (*CARD, "Hyper-SDXL-8steps-CFG-lora.safetensors", "Hyper-FLUX.1-dev-8steps-lora.safetensors"),
    ),
    "stabilityai/stable-diffusion-3.5-large-turbo": Layout(
        PipelineFiles(pipelines.sd3),
        (*CARD, "LICENSE.md", "sd3.5_large_turbo.safetensors", "text_encoders/t5xxl_fp8_e4m3fn.safetensors"),
        gated=True,
    ),
    "Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers": Layout(
        PipelineFiles(pipelines.sana_sprint, shard_size=FEW), (*CARD, "LICENSE")
    ),
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS": Layout(
        PipelineFiles(pipelines.pixart, shard_size=FEW, spiece=("tokenizer",)), (*CARD, "asset/4K_image.jpg")
    ),
    "Qwen/Qwen-Image": Layout(PipelineFiles(pipelines.qwen_image, shard_size=FEW), (*CARD, "LICENSE")),
    "Qwen/Qwen-Image-2512": Layout(PipelineFiles(pipelines.qwen_image, shard_size=FEW), (*CARD, "LICENSE")),
    "Qwen/Qwen-Image-Edit-2511": Layout(_qwen_edit, CARD),
    "lightx2v/Qwen-Image-Edit-2511-Lightning": Layout(
        _lora(pipelines.qwen_image, lightx2v_qwen, "Qwen-Image-Edit-2511-Lightning-4steps-V1.0-bf16.safetensors"),
        (*CARD, "Qwen-Image-Edit-2511-Lightning-4steps-V1.0-fp32.safetensors"),
    ),
    "Qwen/Qwen-Image-2.1-Turbo": Layout(_qwen21, (*CARD, "LICENSE", "NOTICE")),
    "lightx2v/Qwen-Image-Lightning": Layout(
        _lora(pipelines.qwen_image, lightx2v_qwen, "Qwen-Image-Lightning-8steps-V2.0.safetensors"),
        (*CARD, "Qwen-Image-Lightning-8steps-V2.0-bf16.safetensors", "Qwen-Image-Lightning-4steps-V2.0.safetensors"),
    ),
    "lightx2v/Qwen-Image-2512-Lightning": Layout(
        _lora(pipelines.qwen_image, lightx2v_qwen, "Qwen-Image-2512-Lightning-4steps-V1.0-bf16.safetensors"),
        (
            *CARD,
            "Qwen-Image-2512-Lightning-4steps-V1.0-fp32.safetensors",
            "qwen_image_2512_fp8_e4m3fn_scaled.safetensors",
        ),
    ),
    "Tongyi-MAI/Z-Image-Turbo": Layout(
        PipelineFiles(pipelines.z_image, shard_size=FEW), (*CARD, "assets/showcase.jpg")
    ),
    "Tongyi-MAI/Z-Image": Layout(PipelineFiles(pipelines.z_image, shard_size=FEW), (*CARD, "teaser.jpg")),
    "krea/Krea-2-Turbo": Layout(
        PipelineFiles(pipelines.krea2_turbo, shard_size=FEW),
        (*CARD, "LICENSE.pdf", "turbo.safetensors", "images/00.jpg"),
    ),
    "baidu/ERNIE-Image-Turbo": Layout(
        _ernie, (*CARD, "pe/config.json", "pe/model.safetensors", "pe_tokenizer/tokenizer.json")
    ),
    "lodestones/Chroma1-HD": Layout(
        PipelineFiles(pipelines.chroma_hd, shard_size=FEW, spiece=("tokenizer",)), (*CARD, "Chroma1-HD.safetensors")
    ),
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": Layout(
        PipelineFiles(pipelines.wan, shard_size=FEW), (*CARD, "LICENSE.txt", "assets/logo.png", "examples/i2v.png")
    ),
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": Layout(
        PipelineFiles(pipelines.wan_two, shard_size=FEW), (*CARD, "LICENSE.txt", "assets/logo.png")
    ),
    "Wan-AI/Wan2.2-I2V-A14B-Diffusers": Layout(
        PipelineFiles(pipelines.wan22_i2v, shard_size=FEW), (*CARD, "LICENSE.txt", "examples/i2v_input.JPG")
    ),
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": Layout(
        PipelineFiles(pipelines.wan_5b, shard_size=FEW), (*CARD, "assets/logo.png", "examples/i2v_input.JPG")
    ),
    "Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers": Layout(
        PipelineFiles(pipelines.wan_flf2v, shard_size=FEW),
        (*CARD, "LICENSE.txt", "examples/flf2v_input_first_frame.png"),
    ),
    "Wan-AI/Wan2.1-VACE-14B-diffusers": Layout(
        PipelineFiles(pipelines.wan_vace, shard_size=FEW), (*CARD, "assets/comp_effic.png")
    ),
    "lightx2v/Wan2.1-Distill-Loras": Layout(
        _lora(pipelines.wan, lightx2v_wan, "wan2.1_t2v_14b_lora_rank64_lightx2v_4step.safetensors"),
        (*CARD, "wan2.1_i2v_lora_rank64_lightx2v_4step.safetensors"),
    ),
    "lightx2v/Wan2.2-Lightning": Layout(_wan22_lightning, CARD),
    "zai-org/CogVideoX1.5-5B-I2V": Layout(
        PipelineFiles(pipelines.cogvideox_i2v, shard_size=FEW, spiece=("tokenizer",)),
        (*CARD, "LICENSE", "configuration.json"),
    ),
    "Lightricks/LTX-Video-0.9.8-13B-distilled": Layout(
        PipelineFiles(pipelines.ltx_video, shard_size=FEW, spiece=("tokenizer",)), CARD
    ),
    "diffusers/LTX-2.3-Distilled-Diffusers": Layout(
        PipelineFiles(pipelines.ltx23, shard_size=FEW),
        CARD,
    ),
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v_step_distilled": Layout(
        PipelineFiles(pipelines.hunyuan_video15_i2v, shard_size=FEW), CARD
    ),
    "hunyuanvideo-community/HunyuanVideo": Layout(PipelineFiles(pipelines.hunyuan_video, shard_size=FEW), CARD),
}


def write_repositories(folder: Path, names: Collection[str] | None = None) -> dict[str, Repository]:
    """Writes the named repositories, or all, and returns them as the loopback hub serves them."""
    repositories: dict[str, Repository] = {}
    for name, layout in REPOSITORIES.items():
        if names is None or name in names:
            own = folder / name
            own.mkdir(parents=True)
            layout.write(own)
            for other in layout.others:
                (own / other).parent.mkdir(parents=True, exist_ok=True)
                (own / other).write_bytes(b"not to be downloaded\n")
            repositories[name] = Repository(own, _commits(name), layout.gated)
    return repositories


def small_size(entry: Model) -> tuple[int, int, int]:
    """Width, height and frames that the entry's small pipeline makes fast."""
    side = 64 if entry.pipeline in OF_64_PX else 32
    frames = 1 if entry.num_frames is None else max(5, entry.num_frames.min, (entry.num_frames.multiple or 1) + 1)
    return side, side, frames


def _commits(name: str) -> tuple[str, ...]:
    """The revisions by which entries name the repository, behind one of its branch."""
    sources: list[Source] = [
        source for model in Catalog.known(Settings()).values() for source in model.sources.values()
    ]
    pinned = {source.revision for source in sources if source.repository == name and source.revision != "main"}
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in pinned), (name, pinned)
    return (hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest(), *sorted(pinned))
