"""What holds for every family, through the real pipeline class."""

import pytest
import torch

import nag
from tests.nag import oracle
from tests.nag.support import STEPS, Subject, difference
from tests.tiny import CASES

NEGATIVE = "a blue square"


@pytest.fixture
def batched(subject):
    """The pipelines whose calls take several prompts."""
    if subject.case.takes == "one prompt":
        pytest.skip("these pipelines take one prompt a call")
    return subject


def as_taken(subject, prompts):
    """As many of the prompts as one call takes."""
    return prompts[0] if subject.case.takes == "one prompt" else prompts


def test_guidance_changes_the_picture_and_says_so(subject):
    plain = subject.generate()
    with nag.guide(subject.pipe, NEGATIVE) as guidance:
        assert difference(subject.generate(), plain) > 0.01
    assert guidance.guided_steps == STEPS
    assert guidance.params == (nag.defaults_for(subject.pipe),)


@pytest.mark.parametrize("numbers", [{"scale": 1.0}, {"alpha": 0.0}, {"end": 0.0}])
def test_numbers_that_guide_nothing_leave_the_picture_alone(subject, numbers):
    plain = subject.generate()
    with nag.guide(subject.pipe, NEGATIVE, **numbers) as guidance:
        assert torch.equal(subject.generate(), plain)
    assert (guidance.guided_steps, guidance.plain_steps) == (0, STEPS)


def test_the_prompt_as_its_own_negative_changes_nothing(subject):
    with nag.guide(subject.pipe, "a red circle", scale=9.0, alpha=0.8):
        guided = subject.generate()
    assert difference(guided, subject.generate()) < 1e-6


@pytest.mark.parametrize("negative", ["", "a", "a small blue square on a white background"])
def test_a_row_is_the_same_alone_and_in_a_batch_whatever_rides_beside_it(batched, negative):
    prompts, scales, alphas = ["a red circle", "a green shape", batched.case.beside], [4.0, 1.0, 6.0], [0.5, 0.5, 0.9]
    negatives = [negative, NEGATIVE, "a triangle"]
    with nag.guide(batched.pipe, negatives, scale=scales, alpha=alphas):
        together = batched.generate(prompts, seeds=[5, 6, 7])
    for row in range(3):
        with nag.guide(batched.pipe, negatives[row], scale=scales[row], alpha=alphas[row]):
            alone = batched.generate(prompts[row], seeds=[5 + row])
        assert difference(together[row], alone[0]) < 1e-5
    order = [2, 0, 1]
    with nag.guide(
        batched.pipe, [negatives[i] for i in order], scale=[scales[i] for i in order], alpha=[alphas[i] for i in order]
    ):
        permuted = batched.generate([prompts[i] for i in order], seeds=[5 + i for i in order])
    assert difference(permuted, together[order]) < 1e-5


def test_several_images_a_prompt_take_their_prompts_negative(subject):
    if subject.case.takes != "prompts":
        pytest.skip("these pipelines make one picture a prompt")
    with nag.guide(subject.pipe, [NEGATIVE, "a triangle"], scale=[3.0, 6.0]):
        # Of one length: SANA's pipelines hand a prompt's second image the mask of the next prompt.
        four = subject.generate(["a red circle", "a green shape"], num_images_per_prompt=2)
    with nag.guide(subject.pipe, "a triangle", scale=6.0):
        assert difference(subject.generate("a green shape", seeds=[2])[0], four[2]) < 1e-5


def test_guidance_ends_by_the_timestep_within_a_run(subject):
    seen = []

    def record(pipe, step, timestep, kwargs):
        seen.append(subject.case.timestep(float(torch.as_tensor(timestep).max())))
        return kwargs

    with nag.guide(subject.pipe, NEGATIVE, scale=9.0, end=0.5) as guidance:
        half = subject.generate(callback_on_step_end=record)
    assert guidance.guided_steps == sum(timestep >= 500 for timestep in seen)
    assert guidance.plain_steps == sum(timestep < 500 for timestep in seen) > 0
    with nag.guide(subject.pipe, NEGATIVE, scale=9.0):
        assert difference(subject.generate(), half) > 1e-4


def test_rows_may_end_apart(batched):
    with nag.guide(batched.pipe, NEGATIVE, end=[0.25, 1.0], scale_decay=[0.0, 1.0]):
        both = batched.generate(["a red circle", batched.case.beside])
    for row, (prompt, end) in enumerate([("a red circle", 0.25), (batched.case.beside, 1.0)]):
        with nag.guide(batched.pipe, NEGATIVE, end=end, scale_decay=row):
            assert difference(batched.generate(prompt, seeds=[row])[0], both[row]) < 1e-5


def test_embeddings_and_strings_are_the_same_thing(subject):
    with nag.guide(subject.pipe, NEGATIVE):
        by_text = subject.generate()
    negative = subject.encode(NEGATIVE)
    with nag.guide(subject.pipe, **negative):
        assert torch.equal(subject.generate(), by_text)


@pytest.mark.parametrize(("scale", "tau", "alpha"), [(5.0, 2.5, 0.25), (12.0, 1.2, 1.0)])
def test_it_is_the_method_written_out_on_two_prompts(subject, scale, tau, alpha):
    prompts = as_taken(subject, ["a red circle", "a green shape"])
    negatives = as_taken(subject, [NEGATIVE, "a green square" if subject.case.one_length else "a triangle"])
    expected = oracle.generate(subject, prompts, negatives, scale, tau, alpha)
    with nag.guide(subject.pipe, negatives, scale=scale, tau=tau, alpha=alpha):
        guided = subject.generate(prompts)
    assert difference(guided, expected) < 1e-5
    assert difference(guided, subject.generate(prompts)) > 0.01


def test_under_cfg_the_unconditional_rows_stay_plain(subject):
    """Through the denoiser of one CFG step: what is not the prompt's own differs in nothing from a plain run."""
    if subject.case.cfg is None:
        pytest.skip("these pipelines run no CFG")
    prompts = as_taken(subject, ["a red circle", "a green shape"])
    plain = subject.calls_of_a_step(prompts, cfg=True)
    with nag.guide(subject.pipe, NEGATIVE, scale=9.0) as guidance:
        guided = subject.calls_of_a_step(prompts, cfg=True)
    assert guidance.guided_steps == subject.case.fewest_steps
    changed = [
        [difference(a, b) > 1e-3 for a, b in zip(after, before, strict=True)]
        for after, before in zip(guided, plain, strict=True)
    ]
    same = [
        [difference(a, b) < 1e-6 for a, b in zip(after, before, strict=True)]
        for after, before in zip(guided, plain, strict=True)
    ]
    expected = list(subject.case.conditional_rows)
    assert [c for call in changed for c in call] == expected
    assert [not c for call in same for c in call] == expected


def test_everything_is_put_back_after_an_exception(subject):
    denoiser = subject.denoiser
    before = [module.processor for module in denoiser.modules() if hasattr(module, "processor")]
    plain = subject.generate()

    def stop(pipe, step, timestep, kwargs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), nag.guide(subject.pipe, NEGATIVE):
        subject.generate(callback_on_step_end=stop)
    assert [module.processor for module in denoiser.modules() if hasattr(module, "processor")] == before
    assert "encode_prompt" not in vars(subject.pipe)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in denoiser.modules())
    assert torch.equal(subject.generate(), plain)


def test_a_call_after_an_interrupted_one_inside_the_same_guide_is_guided(subject):
    def stop(*_):
        raise KeyboardInterrupt

    attention = next(module for module in subject.denoiser.modules() if hasattr(module, "processor"))
    with nag.guide(subject.pipe, NEGATIVE):
        first = subject.generate()
        handle = attention.register_forward_hook(stop)
        with pytest.raises(KeyboardInterrupt):
            subject.generate()
        handle.remove()
        assert torch.equal(subject.generate(), first)


def test_a_guided_pipeline_is_not_guided_twice(subject):
    with (
        nag.guide(subject.pipe, NEGATIVE),
        pytest.raises(nag.InvalidParameter, match="guided already"),
        nag.guide(subject.pipe, "a"),
    ):
        pass
    with nag.guide(subject.pipe, NEGATIVE):
        subject.generate()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"negative_prompt": ["a", "b", "c"]}, "negative_prompt"),
        ({"negative_prompt": "a", "scale": [2.0, 3.0, 4.0]}, "scale"),
    ],
)
def test_values_that_are_not_one_a_prompt_are_refused(subject, arguments, name):
    with nag.guide(subject.pipe, **arguments), pytest.raises(nag.InvalidParameter, match=name):
        subject.generate(as_taken(subject, ["a red circle", "a"]))


@pytest.mark.parametrize(
    "arguments", [{}, {"negative_prompt": []}, {"negative_prompt": [1]}, {"negative_prompt": "a", "scale": 0.5}]
)
def test_wrong_arguments_are_refused_at_the_door(subject, arguments):
    with pytest.raises(nag.InvalidParameter), nag.guide(subject.pipe, **arguments):
        pass


def test_a_pipeline_of_no_family_is_refused():
    assert not nag.supports(object())
    with pytest.raises(nag.UnsupportedPipeline, match="object"), nag.guide(object(), "a"):
        pass


def test_a_denoiser_called_by_hand_needs_embeddings(subject):
    denoiser = subject.denoiser
    calls = []
    handle = denoiser.register_forward_pre_hook(lambda m, a, k: calls.append((a, k)), with_kwargs=True)
    subject.generate(num_inference_steps=subject.case.fewest_steps)
    handle.remove()
    with torch.no_grad(), nag.guide(subject.pipe, "a"), pytest.raises(nag.NAGError, match="negative_prompt_embeds"):
        denoiser(*calls[0][0], **calls[0][1])


@pytest.mark.parametrize("name", ["flux", "sd", "wan"])
def test_a_pipeline_that_has_nothing_to_encode_is_guided_the_same(name):
    """Some pipelines leave encode_prompt out where they are given embeddings; CFG's rows are told all the same."""
    subject = Subject(next(case for case in CASES if case.name == name))
    encode, results = subject.pipe.encode_prompt, []
    subject.pipe.encode_prompt = lambda *args, **kwargs: results.append(encode(*args, **kwargs)) or results[-1]
    subject.generate(cfg=True)
    del subject.pipe.encode_prompt
    with nag.guide(subject.pipe, **(negative := subject.encode(NEGATIVE))):
        expected = subject.generate(cfg=True)
    with nag.guide(subject.pipe, **negative):
        replay = iter(results)
        subject.pipe.encode_prompt = lambda *args, **kwargs: next(replay)
        assert torch.equal(subject.generate(cfg=True), expected)
    assert difference(subject.generate(cfg=True), expected) > 1e-3
