from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import attention_backend

import nag
from tests.nag import authors_layout
from tests.nag.support import STEPS, Subject, difference
from tests.tiny import find_case
from tests.tiny import flux as make_flux

NEGATIVE = "a blue square"


def small(seed: int, double_blocks: int, single_blocks: int) -> Subject:
    case = find_case("flux")
    return Subject(replace(case, make=lambda seed: make_flux(seed, double_blocks, single_blocks)), seed)


def embeds_of(pipe: Any, prompt: str, length: int = 15) -> tuple[Any, Any]:
    with torch.no_grad():
        embeds, pooled, _ = pipe.encode_prompt(prompt, None, max_sequence_length=length)
    return embeds, pooled


@pytest.mark.parametrize(("double_blocks", "single_blocks"), [(2, 0), (1, 2), (2, 2)])
@pytest.mark.parametrize("end", [1.0, 0.5])
def test_packed_equals_the_authors_layout_where_the_pooled_prompts_are_equal(
    double_blocks: int, single_blocks: int, end: float
) -> None:
    subject = small(1, double_blocks, single_blocks)
    pipe = subject.pipe
    embeds, _ = embeds_of(pipe, NEGATIVE)
    _, pooled = embeds_of(pipe, "a red circle")
    pictures = []
    for reference in (False, True):
        with nag.guide(
            pipe,
            negative_prompt_embeds=embeds,
            negative_pooled_prompt_embeds=pooled,
            scale=9.0,
            alpha=0.7,
            end=end,
            reference=reference,
        ):
            pictures.append(subject.generate(["a red circle"] * 2))
    assert difference(*pictures) < 1e-6
    assert difference(pictures[0], subject.generate(["a red circle"] * 2)) > 0.01


def test_the_authors_layout_hears_the_negative_pooled_prompt(flux: Subject) -> None:
    with nag.guide(flux.pipe, NEGATIVE, scale=9.0):
        packed = flux.generate()
    with nag.guide(flux.pipe, NEGATIVE, scale=9.0, reference=True):
        assert difference(flux.generate(), packed) > 1e-3


@pytest.mark.parametrize(("double_blocks", "single_blocks"), [(2, 0), (1, 3)])
def test_the_reference_form_equals_the_authors_layout_written_out(double_blocks: int, single_blocks: int) -> None:
    pipe = small(2, double_blocks, single_blocks).pipe
    transformer = pipe.transformer.double()
    embeds = [embeds_of(pipe, prompt) for prompt in ("a red circle", NEGATIVE)]
    prompts, pooled = ([part.double() for part in parts] for parts in zip(*embeds, strict=True))
    generator = torch.Generator().manual_seed(0)
    latents, sigma = (
        torch.randn(1, 16, 16, generator=generator, dtype=torch.float64),
        torch.tensor([0.75], dtype=torch.float64),
    )
    image_ids = pipe._prepare_latent_image_ids(1, 4, 4, "cpu", torch.float64)
    arguments = {
        "hidden_states": latents,
        "timestep": sigma,
        "encoder_hidden_states": prompts[0],
        "pooled_projections": pooled[0],
        "txt_ids": image_ids.new_zeros(15, 3),
        "img_ids": image_ids,
        "return_dict": False,
    }
    with (
        torch.no_grad(),
        nag.guide(
            pipe,
            negative_prompt_embeds=prompts[1],
            negative_pooled_prompt_embeds=pooled[1],
            scale=6.0,
            tau=1.5,
            alpha=0.6,
            reference=True,
        ),
    ):
        ours = transformer(**arguments)[0]
        theirs = authors_layout.denoise(transformer, latents, sigma, prompts, pooled, image_ids, 6.0, 1.5, 0.6)
        assert difference(ours, theirs) < 1e-6


@pytest.mark.parametrize("length", [3, 16, 40])
def test_the_negative_may_be_shorter_or_longer_than_the_prompt(flux: Subject, length: int) -> None:
    embeds, _ = embeds_of(flux.pipe, NEGATIVE, length)
    with nag.guide(flux.pipe, negative_prompt_embeds=embeds, scale=6.0):
        guided = flux.generate()
    assert difference(guided, flux.generate()) > 0.005


def test_the_reference_layout_refuses_what_it_cannot_lay_out(flux: Subject) -> None:
    embeds, pooled = embeds_of(flux.pipe, NEGATIVE, 8)
    with (
        nag.guide(flux.pipe, negative_prompt_embeds=embeds, negative_pooled_prompt_embeds=pooled, reference=True),
        pytest.raises(nag.InvalidParameter, match="tokens"),
    ):
        flux.generate()
    embeds, _ = embeds_of(flux.pipe, NEGATIVE)
    with (
        nag.guide(flux.pipe, negative_prompt_embeds=embeds, reference=True),
        pytest.raises(nag.InvalidParameter, match="pooled"),
    ):
        flux.generate()


def test_a_chosen_attention_backend_is_used_and_gives_the_same(flux: Subject) -> None:
    # Choosing one for a model chooses it for the process, and resetting the model's does not undo that.
    with attention_backend("native"), nag.guide(flux.pipe, NEGATIVE, scale=9.0):
        merged = flux.generate()
        flux.pipe.transformer.set_attention_backend("_native_math")
        by_backend = flux.generate()
    assert all(b.attn.processor._attention_backend == "_native_math" for b in flux.pipe.transformer.transformer_blocks)
    flux.pipe.transformer.reset_attention_backend()
    assert difference(by_backend, merged) < 1e-5


def test_fused_projections_give_the_same(flux: Subject) -> None:
    with nag.guide(flux.pipe, NEGATIVE, scale=9.0):
        apart = flux.generate()
        flux.pipe.transformer.fuse_qkv_projections()
        fused = flux.generate()
    flux.pipe.transformer.unfuse_qkv_projections()
    assert difference(fused, apart) < 1e-5


def test_a_lora_loaded_by_peft_acts_under_guidance(flux: Subject) -> None:
    from peft import LoraConfig

    with nag.guide(flux.pipe, NEGATIVE):
        before = flux.generate()
        flux.pipe.transformer.add_adapter(
            LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_v", "add_k_proj"])
        )
        with_lora = flux.generate()
        flux.pipe.transformer.delete_adapters("default")
    assert difference(with_lora, before) > 1e-3
    with nag.guide(flux.pipe, NEGATIVE):
        assert difference(flux.generate(), before) < 1e-6


def test_half_precision_is_close_to_single() -> None:
    subject = small(0, 2, 2)
    pipe = subject.pipe
    with nag.guide(pipe, NEGATIVE):
        single = subject.generate()
        pipe.to(torch.bfloat16)
        half = subject.generate()
    assert difference(half.float(), single) < 0.05


@pytest.mark.parametrize("cfg", [False, True])
def test_a_callback_may_replace_the_prompts_embeddings(flux: Subject, cfg: bool) -> None:
    def replace_embeds(pipe: Any, step: Any, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {"prompt_embeds": kwargs["prompt_embeds"].clone()}

    options: dict[str, Any] = {"cfg": cfg, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    with nag.guide(flux.pipe, NEGATIVE) as guidance:
        expected = flux.generate(cfg=cfg)
        assert guidance.guided_steps == STEPS
        assert torch.equal(flux.generate(callback_on_step_end=replace_embeds, **options), expected)
    assert guidance.guided_steps == 2 * STEPS
