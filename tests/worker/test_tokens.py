"""What of a prompt the tokenizers do not read: said in a warning, or the reason that a strict job fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from contextvars import copy_context
from typing import Any

import pytest

from app.catalog import Catalog
from app.jobs import Guidance, Job
from app.loading.pipeline import load
from app.settings import Settings
from app.worker.engine.pipeline_call import run_calls
from app.worker.engine.shared_model import SharedModel
from app.worker.prompts.encoder_memo import EncoderMemo
from app.worker.prompts.prompt_checks import PromptTooLong
from app.worker.prompts.tokens import PromptReading, TokenizerWatch, route_tokenizers, watch_tokenizers
from tests.worker.generate import CPU, generate, make_calls
from training import text
from training.shapes.world import WORDS

Make = Callable[..., Job]
#: Two tokens of shapes-sd's 16 begin and end a prompt.
FITS = "a small red circle on a white background a small red circle on a"
TOO_LONG = f"{FITS} blue circle"
CUT = 'the model reads 14 of its 16 tokens; the text from word 15 ("blue circle") on has no effect'


@pytest.fixture(scope="module")
def sd() -> Iterator[SharedModel]:
    entry = Catalog.load(Settings()).models["shapes-sd-turbo"]
    model = SharedModel(entry, load(entry, CPU))
    yield model
    model.close()


def messages(model: SharedModel, job: Job, memo: EncoderMemo | None = None) -> list[str]:
    return list(generate(model, job, memo=memo)[0].warnings)


def test_a_prompt_that_fits_is_read_whole(sd: SharedModel, make_job: Make) -> None:
    nag = Guidance(3.0, 2.5, 0.375, 1.0, FITS)
    job = make_job("a", prompt=FITS, num_inference_steps=1, strict=True, nag=nag)
    assert messages(sd, job) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt": TOO_LONG}, ["prompt"]),
        ({"negative_prompt": TOO_LONG, "guidance_scale": 2.0}, ["negative_prompt"]),
        ({"negative_prompt": TOO_LONG}, []),  # not encoded
        ({"negative_prompt": TOO_LONG, "nag": Guidance(3.0, 2.5, 0.375, 1.0, TOO_LONG)}, ["negative_prompt"]),
        ({"nag": Guidance(3.0, 2.5, 0.375, 1.0, TOO_LONG)}, ["nag.negative_prompt"]),
        ({"nag": Guidance(1.0, 2.5, 0.375, 1.0, TOO_LONG)}, []),
        (
            {"prompt": TOO_LONG, "guidance_scale": 2.0, "negative_prompt": f"{TOO_LONG} a",
             "nag": Guidance(3.0, 2.5, 0.375, 1.0, f"a {TOO_LONG}")},
            ["prompt", "negative_prompt", "nag.negative_prompt"],
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("memoized", [False, True])
def test_what_is_cut_is_named(
    sd: SharedModel, make_job: Make, memoized: bool, fields: dict[str, Any], expected: list[str]
) -> None:
    job = make_job("a", num_inference_steps=1, **fields)
    memo = EncoderMemo(10**6 if memoized else 0)
    if memoized:
        messages(sd, job, memo)
    found = messages(sd, job, memo)
    assert [message.partition(":")[0] for message in found] == expected
    if expected == ["prompt"]:
        assert found == [f"prompt: {CUT}"]


@pytest.mark.parametrize("memoized", [False, True])
def test_a_strict_job_fails_before_its_first_step(sd: SharedModel, make_job: Make, memoized: bool) -> None:
    memo, steps = EncoderMemo(10**6 if memoized else 0), list[int]()
    if memoized:
        messages(sd, make_job("lenient", prompt=TOO_LONG, num_inference_steps=1), memo)
    job = make_job("a", prompt=TOO_LONG, num_inference_steps=1, strict=True)
    hook = sd.pipe.unet.register_forward_pre_hook(lambda *_: steps.append(1))
    with pytest.raises(PromptTooLong) as caught:
        generate(sd, job, memo=memo)
    hook.remove()
    assert str(caught.value) == f"prompt: {CUT}"
    assert steps == []


def test_a_strict_job_fails_alone(sd: SharedModel, make_job: Make) -> None:
    lenient, strict, short = make_calls(
        sd, make_job("lenient", prompt=TOO_LONG), make_job("strict", prompt=TOO_LONG, strict=True),
        make_job("short", prompt=FITS, strict=True),
    )  # fmt: skip
    with pytest.raises(PromptTooLong):
        run_calls([lenient, strict, short])
    assert isinstance(strict.error, PromptTooLong)
    assert (lenient.error, short.error) == (None, None)
    assert lenient.made.warnings == (f"prompt: {CUT}",)
    assert (short.made.warnings, short.made.batch_size) == ((), 2)


def test_one_of_two_encoders_cuts(shared: SharedModel, make_job: Make) -> None:
    job = make_job("a", prompt=f"{FITS} large blue circle", strict=True)
    assert messages(shared, job) == [
        'prompt: tokenizer_2 reads 15 of its 17 tokens; the text from word 16 ("blue circle") on reaches other text '
        "encoders alone"
    ]


def test_unknown_words_are_named(shared: SharedModel, make_job: Make) -> None:
    job = make_job("a", prompt="A RED ★star, красный circle")
    assert messages(shared, job) == ['prompt: tokenizer_2 has no tokens for "★star,", "красный"']


@pytest.mark.parametrize(
    ("prompt", "written", "expected"),
    [
        ("red circle blue square", "a a {} a", PromptReading("tokenizer", 4, 3, 4, "square")),
        ("red circle blue", "a a {} a", PromptReading("tokenizer", 3, 3)),  # the template's end is cut, the prompt not
        (" Red CIRCLE blue square ", "a red circle blue square", PromptReading("tokenizer", 4, 3, 4, "square")),
        ("red  ring", "ring", PromptReading("tokenizer", 5, 3, 1, "ring")),  # cleaned so that it is not found
    ],
)
def test_a_template_is_not_the_prompt(prompt: str, written: str, expected: PromptReading) -> None:
    """After a template a pipeline keeps `max_sequence_length` tokens more."""
    watch = TokenizerWatch(max_sequence_length=3)
    tokenizer = text.t5_tokenizer(WORDS)
    most = 3 if written == "ring" else 20
    watch.called(
        "tokenizer", tokenizer, [written.format(prompt)],
        {"truncation": True, "max_length": most, "add_special_tokens": False},
    )  # fmt: skip
    watch.assign([prompt])
    assert watch.readings == {prompt: (expected,)}


class Processor:
    def __init__(self) -> None:
        self.tokenizer = text.t5_tokenizer(WORDS)


class Pipe:
    """As much of a pipeline as is looked at for its tokenizers."""

    def __init__(self, **components: Any) -> None:
        self.components = components

    def __call__(self) -> None: ...


def test_tokenizers_report_to_the_watch_of_their_context_until_the_stack_closes() -> None:
    processor, clip = Processor(), text.clip_tokenizer(WORDS)
    kinds = type(processor.tokenizer), type(clip)
    pipe = Pipe(processor=processor, tokenizer=clip)

    def read(prompt: str) -> TokenizerWatch:
        watch = watch_tokenizers(pipe)
        processor.tokenizer([prompt], truncation=True, max_length=3)
        clip(prompt, truncation=True, max_length=77)
        clip(prompt)
        return watch

    with ExitStack() as stack:
        route_tokenizers(pipe, stack)
        watches = {prompt: copy_context().run(read, prompt) for prompt in ("red ring", "blue ring")}
        clip("a ring", truncation=True)  # outside of any call
    assert (type(processor.tokenizer), type(clip)) == kinds
    for prompt, watch in watches.items():
        watch.assign([prompt])
        assert list(watch.readings) == [prompt]
        first, second = watch.readings[prompt]
        assert (first.tokenizer, first.cut_text) == ("processor", "ring")
        assert (second.tokenizer, second.cut_word) == ("tokenizer", 0)
