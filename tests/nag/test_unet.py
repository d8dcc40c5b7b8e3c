import pytest
import torch
from diffusers.models.attention_processor import Attention, IPAdapterAttnProcessor2_0

import nag
from nag.processors import CrossAttentionProcessor
from nag.session import Guidance, Negative, Session, Step
from tests.nag.support import difference, generate

NEGATIVE = "a blue square"


def test_attention_equals_the_formula_on_two_plain_calls(unet_pipe):
    attn = next(m for m in unet_pipe.unet.modules() if isinstance(m, Attention) and m.is_cross_attention)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 20, attn.query_dim, generator=generator)
    texts = [torch.randn(2, length, attn.cross_attention_dim, generator=generator) for length in (6, 4)]
    seen = []
    handle = attn.to_out[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        plain = [attn(image, encoder_hidden_states=text) for text in texts]
        handle.remove()
        expected = attn.to_out[0](nag.normalized_attention_guidance(*seen, 5.0, 2.5, 0.25))
        session = Session((), None, None, 1000.0, Guidance(()))
        one = torch.ones(1, 1, 1)
        # Row 0 plays CFG's unconditional row, row 1 is guided.
        session.step = Step(5.0 * one, 2.5 * one, 0.25 * one, Negative(texts[1][1:]), slice(1, 2))
        guided = CrossAttentionProcessor(session, attn.processor)(attn, image, texts[0])
    assert difference(guided[1], expected[1]) < 1e-6
    assert difference(guided[0], plain[0][0]) < 1e-6


def test_under_cfg_the_unconditional_rows_stay_plain(unet_pipe):
    def first_output():
        outputs = []
        handle = unet_pipe.unet.register_forward_hook(lambda module, args, output: outputs.append(output[0]))
        try:
            generate(unet_pipe, ["a red circle"] * 2, guidance_scale=4.0, num_inference_steps=1)
        finally:
            handle.remove()
        return outputs[0]

    plain = first_output()
    with nag.guide(unet_pipe, NEGATIVE, scale=9.0):
        guided = first_output()
    assert len(plain) == 4
    assert difference(guided[:2], plain[:2]) < 1e-6
    assert difference(guided[2], plain[2]) > 0.001
    assert difference(guided[3], plain[3]) > 0.001


def test_an_ip_adapter_is_refused_by_name_and_left_alone(unet_pipe):
    attn = next(m for m in unet_pipe.unet.modules() if isinstance(m, Attention) and m.is_cross_attention)
    found = attn.processor
    attn.set_processor(IPAdapterAttnProcessor2_0(attn.query_dim, attn.cross_attention_dim, num_tokens=(4,)))
    try:
        with pytest.raises(nag.UnsupportedPipeline, match="IPAdapterAttnProcessor2_0"), nag.guide(unet_pipe, NEGATIVE):
            pass
        assert isinstance(attn.processor, IPAdapterAttnProcessor2_0)
    finally:
        attn.set_processor(found)


def test_there_is_no_reference_layout_to_ask_for(unet_pipe):
    with pytest.raises(nag.InvalidParameter, match="reference"), nag.guide(unet_pipe, NEGATIVE, reference=True):
        pass


def test_defaults_are_the_papers(unet_pipe):
    alpha = 0.5 if hasattr(unet_pipe, "text_encoder_2") else 0.375
    assert nag.defaults_for(unet_pipe) == nag.NAGParams(scale=3.0, tau=2.5, alpha=alpha)
