"""What `nag-server models check` finds without a download."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from app.catalog import Catalog, Lora, Model, NAGDefaults, Quantization, Range, Scheduler
from app.loading.checks import problems
from app.loading.denoisers import guided_family
from app.loading.pipeline import pipeline_class
from app.loading.prompt_window import prompt_window
from app.settings import Settings
from tests.worker.small import in_folder

KNOWN = Catalog.known(Settings())
LORA = Lora(repository="a/b", weight_name="c")
ANY = NAGDefaults(scale=5, tau=2.5, alpha=0.25, end=1)


def sizes(multiple: int) -> Range[int]:
    return Range[int](default=512, min=512, max=1024, multiple=multiple)


@pytest.mark.parametrize("name", KNOWN)
def test_every_built_in_entry_fits(name: str) -> None:
    assert problems(KNOWN[name]) == []


@pytest.mark.parametrize("name", KNOWN)
def test_every_built_in_entry_says_how_many_tokens_of_a_prompt_are_read(name: str) -> None:
    """Nothing is said if the pipeline gives its language model whole prompts."""
    assert KNOWN[name].prompt_max_tokens == prompt_window(KNOWN[name], pipeline_class(KNOWN[name]))


def test_the_table_of_families_has_the_same_numbers_where_an_entry_says_so() -> None:
    """A default that differs from the library's is a choice, and there is none so far."""
    for name, entry in KNOWN.items():
        defaults = guided_family(pipeline_class(entry)).defaults
        if entry.family == "sd":
            continue  # Stable Diffusion 1.5 and SDXL have the same denoiser class; these numbers are SDXL's
        assert entry.nag is not None, name
        assert (entry.nag.scale, entry.nag.tau, entry.nag.alpha) == (defaults.scale, defaults.tau, defaults.alpha)


def test_inpainting_needs_a_unet_of_the_right_channels(tmp_path: Path) -> None:
    """That of InstructPix2Pix takes the image beside the latents, and no mask."""
    entry = KNOWN["shapes-sd"]
    for name in ("unet", "vae"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_bytes((Path(entry.repository) / name / "config.json").read_bytes())
    index = json.loads((Path(entry.repository) / "model_index.json").read_bytes())
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    entry = entry.model_copy(update={"repository": str(tmp_path)})
    assert "inpaint" not in "\n".join(problems(entry))
    (tmp_path / "unet/config.json").write_text('{"in_channels": 6}')
    assert "inputs.mask: the UNet must take 3 channels" in "\n".join(problems(entry))


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("flux-dev", {"pipeline": "NoSuchPipeline"}, ["pipeline: diffusers", "has no NoSuchPipeline"]),
        ("wan21-lightx2v", {"pipeline": "WanImageToVideoPipeline"}, ["pipeline: WanImageToVideoPipeline needs image"]),
        ("ltx-video-distilled", {"pipeline": "LTXImageToVideoPipeline"}, ["LTXImageToVideoPipeline needs image"]),
        ("sdxl", {"pipeline": "StableDiffusionXLImg2ImgPipeline"}, ["StableDiffusionXLImg2ImgPipeline needs image"]),
        ("flux-dev", {"repository": "nowhere"}, ["repository: no folder nowhere"]),
        ("flux-dev", {"call": {"steps": 3}}, ["call.steps: FluxPipeline takes no such argument"]),
        ("pixart-sigma", {"call": {"anything": 3}}, ["call.anything: PixArtSigmaPipeline"]),  # it has **kwargs
        ("flux-dev", {"prompt_max_tokens": 77}, ["prompt_max_tokens: FluxPipeline reads 512 tokens here, not 77"]),
        ("sdxl", {"prompt_max_tokens": 75}, ["prompt_max_tokens: StableDiffusionXLPipeline reads 77"]),
        ("shapes-sd", {"prompt_max_tokens": 77}, ["prompt_max_tokens: StableDiffusionPipeline reads 16"]),
        ("flux-dev", {"cfg": "guidance_scale"}, ["cfg: FluxPipeline runs CFG by true_cfg_scale"]),
        ("sdxl", {"cfg": "true_cfg_scale"}, ["cfg: StableDiffusionXLPipeline takes no true_cfg_scale"]),
        ("wan21-lightx2v", {"kind": "image"}, ["kind: WanPipeline makes videos"]),
        ("flux-dev", {"kind": "video", "num_frames": sizes(4)}, ["pipeline: FluxPipeline takes no num_frames"]),
        ("sana-sprint", {"cfg": "guidance_scale", "guidance_scale": KNOWN["sdxl"].guidance_scale}, ["negative_prompt"]),
        ("sdxl-dmd2", {"scheduler": Scheduler(name="NoSuch")}, ["scheduler: diffusers", "NoSuch"]),
        ("sdxl-dmd2", {"scheduler": Scheduler(name="LCMScheduler", options={"shift": 1})}, ["scheduler.options.shift"]),
        ("sdxl-dmd2", {"scheduler": Scheduler(name="LCMScheduler", unset=("shift",))}, ["scheduler.options.shift"]),
        ("flux-dev", {"pipeline": "GlmImagePipeline", "nag": ANY}, ["nag: GLM-Image cannot be guided"]),
        ("flux-dev", {"pipeline": "DiTPipeline", "nag": ANY}, ["nag: no family of nag has the denoiser of DiT"]),
        ("pixart-sigma", {"lora": (LORA,)}, ["lora: PixArtSigmaPipeline takes none"]),
        ("pixart-sigma", {"request_loras": True}, ["request_loras: PixArtSigmaPipeline takes none; set it to false"]),
        ("flux-dev", {"lora": (LORA.model_copy(update={"into": "transformer_2"}),)}, ["lora.0.into: FluxPipeline"]),
        ("flux-dev", {"without": ("vocoder",)}, ["without: FluxPipeline has no vocoder"]),
        ("flux-dev", {"without": ("tokenizer",)}, ["without: FluxPipeline needs its tokenizer"]),
        ("flux2-klein", {"guidance_scale": KNOWN["sdxl"].guidance_scale}, ["inputs: inpaint: ", "negative_prompt"]),
        ("flux-dev", {"component_dtypes": {"unet": "float32"}}, ["component_dtypes: FluxPipeline has no unet"]),
        (
            "flux-dev",
            {"quantization": Quantization(method="bitsandbytes-nf4", components=("unet",))},
            ["quantization.components: FluxPipeline has no unet", "needs bitsandbytes"],
        ),
        ("flux-dev", {"width": sizes(8)}, ["width, height: `height` and `width` have to be divisible by 16"]),
        ("sdxl", {"height": sizes(4)}, ["height.multiple", "divisible by 8"]),
        ("sana-sprint", {"width": sizes(16)}, ["width.multiple: SanaSprintPipeline decodes to multiples of 32"]),
        ("wan21-lightx2v", {"height": sizes(8)}, ["have to be divisible by 16"]),
        (
            "ltx-video-distilled",
            {"num_frames": Range[int](default=5, min=5, max=9, multiple=4, offset=1)},
            ["num_frames.multiple: LTXConditionPipeline decodes to multiples of 8, plus 1"],
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(name: str, changes: dict[str, Any], said: list[str]) -> None:
    entry: Model = KNOWN[name].model_copy(update=changes)
    found = "\n".join(problems(entry))
    assert all(each in found for each in said), found


def test_a_vae_that_is_switched_between_precisions_is_said(tmp_path: Path) -> None:
    entry = in_folder(KNOWN["sdxl"], tmp_path).model_copy(update={"dtype": "float16"})
    assert problems(entry) == []
    own = entry.model_copy(update={"vae": None})
    (found,) = problems(own)
    assert found.startswith(f"vae: that of {own.repository} overflows in float16 (force_upcast)")
    assert problems(own.model_copy(update={"dtype": "bfloat16"})) == []
    assert problems(own.model_copy(update={"repository": "nobody/knows"})) == []


def test_a_tokenizer_without_its_packages_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = in_folder(KNOWN["pixart-sigma"], tmp_path)
    folder = Path(entry.repository) / "tokenizer"
    (folder / "tokenizer.json").unlink(missing_ok=True)
    (folder / "spiece.model").touch()
    assert problems(entry) == []
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    assert problems(entry) == [
        "tokenizer: needs sentencepiece: pip install it",
        "tokenizer: needs protobuf: pip install it",
    ]
    (folder / "tokenizer.json").touch()
    assert problems(entry) == []
