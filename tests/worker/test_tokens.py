"""What of a prompt the tokenizers do not read: said in a warning, or the reason that a strict job fails."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from app.worker.batching import Row
from app.worker.denoise import Hooks, denoise
from app.worker.prompts import PromptCache, encoding_kept
from app.worker.work import Control, Made

from app.catalog import Catalog, Model
from app.jobs import PROMPT_TOO_LONG, Guidance, Job, JobError
from app.settings import Settings
from app.worker.engine import TorchEngine
from app.worker.pipelines import load
from app.worker.prompt_checks import PromptTooLong
from app.worker.recorder import Recorder
from app.worker.tokens import PromptReading, TokenizerWatch, watch_tokenizers
from training import text
from training.shapes.world import WORDS

Make = Callable[..., Job]
CPU = torch.device("cpu")
#: Two tokens of shapes-sd's 16 begin and end a prompt.
FITS = "a small red circle on a white background a small red circle on a"
TOO_LONG = f"{FITS} blue circle"
CUT = 'the model reads 14 of its 16 tokens; the text from word 15 ("blue circle") on has no effect'


@pytest.fixture(scope="module")
def sd() -> Model:
    return Catalog.load(Settings()).models["shapes-sd-turbo"]


@pytest.fixture(scope="module")
def sd_pipe(sd: Model) -> Any:
    return load(sd, CPU)


def messages(pipe: Any, entry: Model, job: Job, hooks: Hooks | None = None) -> list[str]:
    return [finding.message for finding in denoise(pipe, entry, [Row(job, 0)], CPU, hooks).findings[0]]


def test_a_prompt_that_fits_is_read_whole(sd_pipe: Any, sd: Model, make_job: Make) -> None:
    nag = Guidance(3.0, 2.5, 0.375, 1.0, FITS)
    job = make_job("a", model=sd.id, prompt=FITS, num_inference_steps=1, strict=True, nag=nag)
    assert messages(sd_pipe, sd, job) == []


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
@pytest.mark.parametrize("cached", [False, True])
def test_what_is_cut_is_named(
    sd_pipe: Any, sd: Model, make_job: Make, cached: bool, fields: dict[str, Any], expected: list[str]
) -> None:
    job = make_job("a", model=sd.id, num_inference_steps=1, **fields)
    hooks = Hooks()
    if cached:
        hooks = Hooks(encoding=partial(encoding_kept, model=sd.id, cache=PromptCache(10**6), recorder=Recorder()))
        messages(sd_pipe, sd, job, hooks)
    found = messages(sd_pipe, sd, job, hooks)
    assert [message.partition(":")[0] for message in found] == expected
    if expected == ["prompt"]:
        assert found == [f"prompt: {CUT}"]


def test_a_strict_job_fails_before_its_first_step(sd_pipe: Any, sd: Model, make_job: Make) -> None:
    kinds = [type(part) for part in sd_pipe.components.values()]
    steps: list[int] = []
    job = make_job("a", model=sd.id, prompt=TOO_LONG, num_inference_steps=1, strict=True)
    with pytest.raises(PromptTooLong) as caught:
        denoise(sd_pipe, sd, [Row(job, 0)], CPU, Hooks(steps.append))
    assert caught.value.messages == {"a": f"prompt: {CUT}"}
    assert TOO_LONG[:10] not in str(caught.value)  # what an exception says is logged
    assert steps == []
    assert [type(part) for part in sd_pipe.components.values()] == kinds


def test_a_strict_job_fails_alone(engine: TorchEngine, make_job: Make) -> None:
    long = " ".join(["circle"] * 76)
    jobs = [
        make_job("lenient", prompt=long),
        make_job("strict", prompt=long, strict=True),
        make_job("short", n=2, strict=True),
    ]
    outcomes = engine.run(jobs, Control())
    error, lenient, short = outcomes["strict"], outcomes["lenient"], outcomes["short"]
    assert isinstance(error, JobError)
    assert error.code == PROMPT_TOO_LONG
    assert 'prompt: the model reads 75 of its 76 tokens; the text from word 76 ("circle") on has no' in error.message
    assert "strict" in error.message
    assert isinstance(lenient, Made)
    assert len(lenient.warnings) == 1
    assert isinstance(short, Made)
    assert (short.warnings, len(short.files), short.batch_size) == ((), 2, 3)


def test_one_of_two_encoders_cuts(engine: TorchEngine, make_job: Make) -> None:
    job = make_job("a", prompt=f"{FITS} large blue circle", strict=True)
    made = engine.run([job], Control())["a"]
    assert isinstance(made, Made)
    assert made.warnings == (
        'prompt: tokenizer_2 reads 15 of its 17 tokens; the text from word 16 ("blue circle") on reaches other text '
        "encoders alone",
    )


def test_unknown_words_are_named(engine: TorchEngine, make_job: Make) -> None:
    made = engine.run([make_job("a", prompt="A RED ★star, красный circle")], Control())["a"]
    assert isinstance(made, Made)
    assert made.warnings == ('prompt: tokenizer_2 has no tokens for "★star,", "красный"',)


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


def test_tokenizers_of_processors_are_watched_too() -> None:
    class Processor:
        tokenizer = text.t5_tokenizer(WORDS)

    class Pipe:
        def __init__(self, **components: Any) -> None:
            self.components = components

        def __call__(self) -> None: ...

    clip = text.clip_tokenizer(WORDS)
    with watch_tokenizers(Pipe(processor=Processor(), tokenizer=clip)) as watch:
        Processor.tokenizer(["red ring"], truncation=True, max_length=3)
        clip("red ring", truncation=True, max_length=77)
        clip("red ring")
    watch.assign(["red ring"])
    first, second = watch.readings["red ring"]
    assert (first.tokenizer, first.cut_text, second.tokenizer, second.cut_word) == ("processor", "ring", "tokenizer", 0)
