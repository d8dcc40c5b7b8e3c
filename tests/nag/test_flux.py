import pytest
import torch

import nag
from nag.packing import Packing
from nag.processors.flux_projections import QKV
from nag.processors.joint import merged_attention, two_call_attention
from tests import tiny
from tests.nag import authors_layout
from tests.nag.support import difference, generate, quiet

NEGATIVE = "a blue square"


def embeds_of(pipe, prompt, length=16):
    with torch.no_grad():
        embeds, pooled, _ = pipe.encode_prompt(prompt, None, max_sequence_length=length)
    return embeds, pooled


def test_merging_by_log_sum_exp_equals_two_attention_calls():
    generator = torch.Generator().manual_seed(0)
    qkv = QKV(*(torch.randn(2, 9 + 5 + 30, 4, 16, generator=generator) for _ in range(3)))
    for merged, called in zip(
        merged_attention(qkv, Packing(9, 5)), two_call_attention(qkv, Packing(9, 5)), strict=True
    ):
        assert difference(merged, called) < 1e-6


@pytest.mark.parametrize(("double_blocks", "single_blocks"), [(2, 0), (1, 2), (2, 2)])
@pytest.mark.parametrize("end", [1.0, 0.5])
def test_packed_equals_the_authors_layout_where_the_pooled_prompts_are_equal(double_blocks, single_blocks, end):
    pipe = quiet(tiny.flux(1, double_blocks, single_blocks))
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
            pictures.append(generate(pipe, ["a red circle"] * 2))
    assert difference(*pictures) < 1e-6
    assert difference(pictures[0], generate(pipe, ["a red circle"] * 2)) > 0.01


def test_the_authors_layout_hears_the_negative_pooled_prompt(flux):
    with nag.guide(flux, NEGATIVE, scale=9.0):
        packed = generate(flux)
    with nag.guide(flux, NEGATIVE, scale=9.0, reference=True):
        assert difference(generate(flux), packed) > 1e-3


@pytest.mark.parametrize(("double_blocks", "single_blocks"), [(2, 0), (1, 3)])
def test_the_reference_form_equals_the_authors_layout_written_out(double_blocks, single_blocks):
    pipe = tiny.flux(2, double_blocks, single_blocks)
    transformer = pipe.transformer.double()
    prompts, pooled = zip(*(embeds_of(pipe, prompt) for prompt in ("a red circle", NEGATIVE)), strict=True)
    prompts, pooled = [each.double() for each in prompts], [each.double() for each in pooled]
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
        "txt_ids": image_ids.new_zeros(16, 3),
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


def test_attention_equals_the_formula_on_two_plain_calls(flux):
    """One double-block attention against the module's own plain processor, called once a prompt."""
    attn, generator = flux.transformer.transformer_blocks[0].attn, torch.Generator().manual_seed(0)
    image = torch.randn(1, 20, 32, generator=generator)
    texts = [torch.randn(1, length, 32, generator=generator) for length in (6, 4)]
    seen = []
    handle = attn.to_out[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        plain_texts = [attn(image, encoder_hidden_states=text)[1] for text in texts]
        handle.remove()
        expected = attn.to_out[0](nag.normalized_attention_guidance(*seen, 5.0, 2.5, 0.25))
        guided_image, guided_text = guided_attention(flux, attn, image, torch.cat(texts, dim=1), Packing(6, 4))
    assert difference(guided_image, expected) < 1e-6
    assert difference(guided_text, torch.cat(plain_texts, dim=1)) < 1e-6


def guided_attention(flux, attn, image, text, packing):
    """`attn` as it runs inside a guided step with this packing."""
    from nag.processors import JointAttentionProcessor
    from nag.session import Guidance, Negative, Session, Step

    one = torch.ones(1, 1, 1)
    session = Session((), None, None, 1000.0, Guidance(()))
    session.step = Step(5.0 * one, 2.5 * one, 0.25 * one, Negative(text), slice(0, 1), packing)
    return JointAttentionProcessor(session, attn.processor)(attn, image, text)


@pytest.mark.parametrize("length", [3, 16, 40])
def test_the_negative_may_be_shorter_or_longer_than_the_prompt(flux, length):
    embeds, _ = embeds_of(flux, NEGATIVE, length)
    with nag.guide(flux, negative_prompt_embeds=embeds, scale=6.0):
        guided = generate(flux)
    assert difference(guided, generate(flux)) > 0.005


def test_the_reference_layout_refuses_what_it_cannot_lay_out(flux):
    embeds, pooled = embeds_of(flux, NEGATIVE, 8)
    with (
        nag.guide(flux, negative_prompt_embeds=embeds, negative_pooled_prompt_embeds=pooled, reference=True),
        pytest.raises(nag.InvalidParameter, match="tokens"),
    ):
        generate(flux)
    embeds, _ = embeds_of(flux, NEGATIVE)
    with (
        nag.guide(flux, negative_prompt_embeds=embeds, reference=True),
        pytest.raises(nag.InvalidParameter, match="pooled"),
    ):
        generate(flux)


def test_under_true_cfg_the_unconditional_calls_stay_plain(flux):
    """Each CFG step calls the denoiser twice; only the call for the prompt may differ from a plain run."""

    def first_two_outputs():
        outputs = []
        handle = flux.transformer.register_forward_hook(lambda module, args, output: outputs.append(output[0]))
        try:
            generate(flux, true_cfg_scale=3.0, negative_prompt="a triangle", num_inference_steps=1)
        finally:
            handle.remove()
        return outputs

    plain = first_two_outputs()
    with nag.guide(flux, NEGATIVE, scale=9.0) as guidance:
        guided = first_two_outputs()
    assert guidance.guided_steps == 1
    assert difference(guided[0], plain[0]) > 0.01
    assert torch.equal(guided[1], plain[1])


def test_a_chosen_attention_backend_is_used_and_gives_the_same(flux):
    with nag.guide(flux, NEGATIVE, scale=9.0):
        merged = generate(flux)
        flux.transformer.set_attention_backend("_native_math")
        by_backend = generate(flux)
    assert all(b.attn.processor._attention_backend == "_native_math" for b in flux.transformer.transformer_blocks)
    flux.transformer.reset_attention_backend()
    assert difference(by_backend, merged) < 1e-5


def test_fused_projections_give_the_same(flux):
    with nag.guide(flux, NEGATIVE, scale=9.0):
        apart = generate(flux)
        flux.fuse_qkv_projections() if hasattr(
            flux, "fuse_qkv_projections"
        ) else flux.transformer.fuse_qkv_projections()
        fused = generate(flux)
    flux.transformer.unfuse_qkv_projections()
    assert difference(fused, apart) < 1e-5


def test_a_lora_loaded_by_peft_acts_under_guidance(flux):
    from peft import LoraConfig

    with nag.guide(flux, NEGATIVE):
        before = generate(flux)
        flux.transformer.add_adapter(
            LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_v", "add_k_proj"])
        )
        with_lora = generate(flux)
        flux.transformer.delete_adapters("default")
    assert difference(with_lora, before) > 1e-3
    with nag.guide(flux, NEGATIVE):
        assert difference(generate(flux), before) < 1e-6


def test_half_precision_is_close_to_single():
    pipe = quiet(tiny.flux())
    with nag.guide(pipe, NEGATIVE):
        single = generate(pipe)
        pipe.to(torch.bfloat16)
        half = generate(pipe)
    assert difference(half.float(), single) < 0.05
