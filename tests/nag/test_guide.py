"""What holds for every family, through the real pipeline class."""

import pytest
import torch

import nag
from tests.nag.support import difference, generate

NEGATIVE = "a blue square"


def test_guidance_changes_the_picture_and_says_so(pipe):
    plain = generate(pipe)
    with nag.guide(pipe, NEGATIVE) as guidance:
        assert difference(generate(pipe), plain) > 0.01
    assert guidance.guided_steps == 4
    assert guidance.params == (nag.defaults_for(pipe),)


@pytest.mark.parametrize("numbers", [{"scale": 1.0}, {"alpha": 0.0}, {"end": 0.0}])
def test_numbers_that_guide_nothing_leave_the_picture_alone(pipe, numbers):
    plain = generate(pipe)
    with nag.guide(pipe, NEGATIVE, **numbers) as guidance:
        assert torch.equal(generate(pipe), plain)
    assert (guidance.guided_steps, guidance.plain_steps) == (0, 4)


def test_the_prompt_as_its_own_negative_changes_nothing(pipe):
    with nag.guide(pipe, "a red circle", scale=9.0, alpha=0.8):
        guided = generate(pipe)
    assert difference(guided, generate(pipe)) < 1e-6


@pytest.mark.parametrize("negative", ["", "a", "a small blue square on a white background"])
def test_a_row_is_the_same_alone_and_in_a_batch_whatever_rides_beside_it(pipe, negative):
    prompts, scales, alphas = ["a red circle", "a green shape", "a"], [4.0, 1.0, 6.0], [0.5, 0.5, 0.9]
    negatives = [negative, NEGATIVE, "a triangle"]
    with nag.guide(pipe, negatives, scale=scales, alpha=alphas):
        together = generate(pipe, prompts, seeds=[5, 6, 7])
    for row in range(3):
        with nag.guide(pipe, negatives[row], scale=scales[row], alpha=alphas[row]):
            alone = generate(pipe, prompts[row], seeds=[5 + row])
        assert difference(together[row], alone[0]) < 1e-5
    order = [2, 0, 1]
    with nag.guide(
        pipe, [negatives[i] for i in order], scale=[scales[i] for i in order], alpha=[alphas[i] for i in order]
    ):
        permuted = generate(pipe, [prompts[i] for i in order], seeds=[5 + i for i in order])
    assert difference(permuted, together[order]) < 1e-5


def test_several_images_a_prompt_take_their_prompts_negative(pipe):
    with nag.guide(pipe, [NEGATIVE, "a triangle"], scale=[3.0, 6.0]):
        four = generate(pipe, ["a red circle", "a"], num_images_per_prompt=2)
    with nag.guide(pipe, "a triangle", scale=6.0):
        assert difference(generate(pipe, "a", seeds=[2])[0], four[2]) < 1e-5


def test_guidance_ends_by_the_timestep_within_a_run(pipe):
    seen = []

    def record(pipe, step, timestep, kwargs):
        seen.append(float(timestep))
        return kwargs

    with nag.guide(pipe, NEGATIVE, scale=9.0, end=0.5) as guidance:
        half = generate(pipe, callback_on_step_end=record)
    assert guidance.guided_steps == sum(timestep >= 500 for timestep in seen)
    assert guidance.plain_steps == sum(timestep < 500 for timestep in seen) > 0
    with nag.guide(pipe, NEGATIVE, scale=9.0):
        assert difference(generate(pipe), half) > 1e-4


def test_rows_may_end_apart(pipe):
    with nag.guide(pipe, NEGATIVE, end=[0.25, 1.0]):
        both = generate(pipe, ["a red circle", "a"])
    for row, (prompt, end) in enumerate([("a red circle", 0.25), ("a", 1.0)]):
        with nag.guide(pipe, NEGATIVE, end=end):
            assert difference(generate(pipe, prompt, seeds=[row])[0], both[row]) < 1e-5


def test_embeddings_and_strings_are_the_same_thing(pipe):
    with nag.guide(pipe, NEGATIVE):
        by_text = generate(pipe)
    options = {"max_sequence_length": 16} if hasattr(pipe, "transformer") else {"do_classifier_free_guidance": False}
    with torch.no_grad():
        embeds = pipe.encode_prompt(
            NEGATIVE,
            device=pipe.device,
            num_images_per_prompt=1,
            **({"prompt_2": None} if hasattr(pipe, "text_encoder_2") else {}),
            **options,
        )[0]
    with nag.guide(pipe, negative_prompt_embeds=embeds):
        assert torch.equal(generate(pipe), by_text)


def test_everything_is_put_back_after_an_exception(pipe):
    denoiser = getattr(pipe, "transformer", None) or pipe.unet
    before = [module.processor for module in denoiser.modules() if hasattr(module, "processor")]
    plain = generate(pipe)

    def stop(pipe, step, timestep, kwargs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), nag.guide(pipe, NEGATIVE):
        generate(pipe, callback_on_step_end=stop)
    assert [module.processor for module in denoiser.modules() if hasattr(module, "processor")] == before
    assert "encode_prompt" not in vars(pipe)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in denoiser.modules())
    assert torch.equal(generate(pipe), plain)


def test_a_call_after_an_interrupted_one_inside_the_same_guide_is_guided(pipe):
    def stop(pipe, step, timestep, kwargs):
        raise KeyboardInterrupt

    with nag.guide(pipe, NEGATIVE):
        first = generate(pipe)
        with pytest.raises(KeyboardInterrupt):
            generate(pipe, callback_on_step_end=stop)
        assert torch.equal(generate(pipe), first)


def test_a_guided_pipeline_is_not_guided_twice(pipe):
    with nag.guide(pipe, NEGATIVE), pytest.raises(nag.InvalidParameter, match="guided already"), nag.guide(pipe, "a"):
        pass
    with nag.guide(pipe, NEGATIVE):
        generate(pipe)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"negative_prompt": ["a", "b", "c"]}, "negative_prompt"),
        ({"negative_prompt": "a", "scale": [2.0, 3.0, 4.0]}, "scale"),
    ],
)
def test_values_that_are_not_one_a_prompt_are_refused(pipe, arguments, name):
    with nag.guide(pipe, **arguments), pytest.raises(nag.InvalidParameter, match=name):
        generate(pipe, ["a red circle", "a"])


@pytest.mark.parametrize(
    "arguments", [{}, {"negative_prompt": []}, {"negative_prompt": [1]}, {"negative_prompt": "a", "scale": 0.5}]
)
def test_wrong_arguments_are_refused_at_the_door(pipe, arguments):
    with pytest.raises(nag.InvalidParameter), nag.guide(pipe, **arguments):
        pass


def test_a_pipeline_of_no_family_is_refused():
    assert not nag.supports(object())
    with pytest.raises(nag.UnsupportedPipeline, match="object"), nag.guide(object(), "a"):
        pass


def test_a_denoiser_called_by_hand_needs_embeddings(pipe):
    denoiser = getattr(pipe, "transformer", None) or pipe.unet
    calls = []
    handle = denoiser.register_forward_pre_hook(lambda m, a, k: calls.append((a, k)), with_kwargs=True)
    generate(pipe, num_inference_steps=1)
    handle.remove()
    with torch.no_grad(), nag.guide(pipe, "a"), pytest.raises(nag.NAGError, match="negative_prompt_embeds"):
        denoiser(*calls[0][0], **calls[0][1])
