"""What users put beside guidance: image adapters, ControlNets, other pipelines of the same parts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import diffusers
import pytest
import torch
from diffusers import ControlNetModel, FluxControlNetModel

import nag
from tests.nag import oracle
from tests.nag.support import Subject, difference
from tests.tiny import find_case

NEGATIVE = "a blue square"
PROMPTS, NEGATIVES = ["a red circle", "a green shape"], [NEGATIVE, "a triangle"]
PICTURE = torch.linspace(0, 1, 3 * 16 * 16).sin().abs().view(1, 3, 16, 16)
MASK = torch.zeros(1, 1, 16, 16)
MASK[..., :8] = 1.0
IMAGE_WIDTH, IMAGE_TOKENS = 24, 4


def subject(name: str, change: Callable[..., Any] = lambda pipe: pipe, **options: Any) -> Subject:
    """The case's pipeline, changed, and called with more options."""
    case = find_case(name)
    options = dict(case.options) | options
    changed = replace(case, make=lambda seed: change(case.make(seed)), options=options, fewest_steps=2)
    return Subject(changed, steps=2)


def assert_guided_as_written_out(changed: Any, **numbers: Any) -> None:
    numbers = {"scale": 6.0, "tau": 2.0, "alpha": 0.6} | numbers
    expected = oracle.generate(changed, PROMPTS, NEGATIVES, **numbers)
    with nag.guide(changed.pipe, NEGATIVES, **numbers):
        guided = changed.generate(PROMPTS)
    assert difference(guided, expected) < 1e-5
    assert difference(guided, changed.generate(PROMPTS)) > 1e-3


def noisy(model: Any, std: float = 0.3) -> Any:
    """Opens the zero layers by which a ControlNet starts."""
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=std)
    return model.eval()


def with_ip_adapter(pipe: Any) -> Any:
    """Through the loader, from a state dict as IP-Adapter's files hold it."""
    unet, weights = pipe.unet, {}
    width = unet.config.cross_attention_dim
    of_image = {
        "proj.weight": torch.randn(IMAGE_TOKENS * width, IMAGE_WIDTH) * 0.3,
        "proj.bias": torch.zeros(IMAGE_TOKENS * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    modules = dict(unet.named_modules())
    for i, name in enumerate(name for name in unet.attn_processors if "attn2" in name):
        inner = modules[name.removesuffix(".processor")].to_q.out_features
        for key in ("to_k_ip", "to_v_ip"):
            weights[f"{2 * i + 1}.{key}.weight"] = torch.randn(inner, width) * 0.3
    pipe.load_ip_adapter({"image_proj": of_image, "ip_adapter": weights}, "", "", image_encoder_folder=None)
    pipe.set_ip_adapter_scale(0.7)
    return pipe


@pytest.fixture(params=["sd", "sdxl", "kolors"])
def adapted(request: pytest.FixtureRequest) -> Subject:
    embeds = torch.randn(1, 1, IMAGE_WIDTH, generator=torch.Generator().manual_seed(3))
    return subject(request.param, with_ip_adapter, ip_adapter_image_embeds=[embeds])


def test_an_ip_adapter_adds_its_part_unguided(adapted: Subject) -> None:
    # The oracle guides the attention to the text alone and leaves the adapter's own attention call as it is.
    assert_guided_as_written_out(adapted)
    kept = adapted.generate()
    adapted.pipe.set_ip_adapter_scale(0.0)
    assert difference(adapted.generate(), kept) > 1e-3


def test_an_ip_adapters_processors_are_put_back_with_their_weights(adapted: Subject) -> None:
    names, plain = set(adapted.pipe.unet.state_dict()), adapted.generate()
    with nag.guide(adapted.pipe, NEGATIVE):
        adapted.generate()
    assert set(adapted.pipe.unet.state_dict()) == names
    assert torch.equal(adapted.generate(), plain)


def test_under_cfg_an_ip_adapter_leaves_the_unconditional_rows_plain(adapted: Subject) -> None:
    cfg: dict[str, Any] = {"num_inference_steps": 1, "ip_adapter_image_embeds": [torch.randn(2, 1, IMAGE_WIDTH)]}
    (plain,) = adapted.calls(cfg=True, **cfg)[1]
    with nag.guide(adapted.pipe, NEGATIVE, scale=9.0):
        (guided,) = adapted.calls(cfg=True, **cfg)[1]
    assert difference(guided[0], plain[0]) < 1e-6
    assert difference(guided[1], plain[1]) > 1e-3


def test_an_ip_adapter_is_scaled_and_unloaded_inside_a_guide(adapted: Subject) -> None:
    def guided(change: Callable[..., Any]) -> Any:
        change()
        with nag.guide(adapted.pipe, NEGATIVE):
            return adapted.generate(**options)

    def changed_inside(change: Callable[..., Any]) -> Any:
        with nag.guide(adapted.pipe, NEGATIVE):
            change()
            return adapted.generate(**options)

    options: dict[str, Any] = {}
    scale = adapted.pipe.set_ip_adapter_scale
    weak, strong = guided(lambda: scale(0.1)), guided(lambda: scale(1.0))
    assert difference(strong, weak) > 1e-3
    assert torch.equal(changed_inside(lambda: scale(0.1)), weak)
    if adapted.case.name == "kolors":
        return  # where unloading looks for a part that this one has not
    options = {"ip_adapter_image_embeds": None}
    unloaded = changed_inside(adapted.pipe.unload_ip_adapter)
    assert difference(unloaded, weak) > 1e-3
    assert torch.equal(guided(lambda: None), unloaded)
    assert not any("ip" in name for name in adapted.pipe.unet.state_dict())


def test_an_ip_adapter_is_loaded_inside_a_guide() -> None:
    embeds = torch.randn(1, 1, IMAGE_WIDTH, generator=torch.Generator().manual_seed(3))
    plain = subject("sd")
    with nag.guide(plain.pipe, NEGATIVE):
        before = plain.generate()
        torch.manual_seed(0)
        with_ip_adapter(plain.pipe)
        loaded = plain.generate(ip_adapter_image_embeds=[embeds])
    assert difference(loaded, before) > 1e-3
    with nag.guide(plain.pipe, NEGATIVE):
        assert torch.equal(plain.generate(ip_adapter_image_embeds=[embeds]), loaded)


def test_a_processor_put_in_place_inside_a_guide_that_does_not_compose_is_refused() -> None:
    class Other:
        def __call__(self, attn: Any, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
            return hidden_states

    plain = subject("sd")
    with nag.guide(plain.pipe, NEGATIVE):
        plain.pipe.unet.set_attn_processor(Other())
        with pytest.raises(nag.UnsupportedPipeline, match="type Other"):
            plain.generate()


def with_controlnet(kind: Any) -> Any:
    def change(pipe: Any) -> Any:
        torch.manual_seed(1)
        if "Flux" in kind:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # it takes its rotary embedding from an old place
                net = FluxControlNetModel.from_transformer(
                    pipe.transformer, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2
                )
        else:
            net = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(4, 8))
        return getattr(diffusers, kind)(**pipe.components, controlnet=noisy(net))

    return change


@pytest.mark.parametrize(
    ("name", "kind", "control"),
    [
        ("sd", "StableDiffusionControlNetPipeline", "image"),
        ("sdxl", "StableDiffusionXLControlNetPipeline", "image"),
        ("flux", "FluxControlNetPipeline", "control_image"),
    ],
)
def test_a_controlnet_steers_a_guided_picture(name: str, kind: str, control: str) -> None:
    changed = subject(name, with_controlnet(kind), **{control: PICTURE})
    assert_guided_as_written_out(changed)
    with nag.guide(changed.pipe, NEGATIVE):
        steered = changed.generate()
        other: dict[str, Any] = {control: 1 - PICTURE}
        assert difference(changed.generate(**other), steered) > 1e-3


@pytest.mark.parametrize("name", ["sd", "sdxl", "flux"])
@pytest.mark.parametrize("form", ["Img2Img", "Inpaint"])
def test_pipelines_that_start_from_a_picture(name: str, form: str) -> None:
    prefix = {"sd": "StableDiffusion", "sdxl": "StableDiffusionXL", "flux": "Flux"}[name]
    kind = getattr(diffusers, f"{prefix}{form}Pipeline")
    options = {"image": PICTURE, "strength": 0.8} | ({"mask_image": MASK} if form == "Inpaint" else {})
    assert_guided_as_written_out(subject(name, lambda pipe: kind(**pipe.components), **options))
