"""Encoded prompts that are kept: what makes two of them one, how many are held, and that nobody can change them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from app.jobs import Guidance, Job
from app.worker.engine.calls import Coroutine
from app.worker.engine.shared_model import SharedModel
from app.worker.prompts.encoder_memo import EncodedPrompt, EncoderMemo, memoize_encoders
from app.worker.prompts.prompt_checks import PromptTooLong
from app.worker.prompts.tokens import PromptReading, watch_tokenizers
from app.worker.recorder import Event, Recorder
from tests.inputs import edit
from tests.pictures import png
from tests.worker.generate import generate
from tests.worker.tiny_models import image_side, tiny_model

Make = Callable[..., Job]
NAG = Guidance(4.0, 2.5, 0.5, 1.0, "a red shape")
TOLERANCE = 1e-5


class MemoizedEncoder:
    """The encoder of a pipeline with a memo of its own."""

    def __init__(self, model: SharedModel) -> None:
        self.model, self.memo, self.recorder = model, EncoderMemo(2**24), Recorder()

    @property
    def counts(self) -> tuple[int, int]:
        """Hits and misses."""
        return self.recorder.of(Event.PROMPT_HIT), self.recorder.of(Event.PROMPT_MISS)

    def pipeline(self) -> Any:
        """A call's own pipeline."""
        pipe = self.model.own_pipeline("generate")
        weights = self.model.text_weights(())
        memoize_encoders(pipe, self.model.entry.id, weights, self.memo, self.recorder, watch_tokenizers(pipe))
        return pipe

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return self.pipeline().encode_prompt(*args, **kwargs)


@pytest.fixture
def flux() -> Iterator[MemoizedEncoder]:
    model = tiny_model("flux")
    yield MemoizedEncoder(model)
    model.close()


def test_a_prompt_is_encoded_once_for_equal_arguments(flux: MemoizedEncoder) -> None:
    first = flux.encode(["a red circle"], max_sequence_length=7)
    again = flux.encode(prompt=["a red circle"], max_sequence_length=7)  # however they are passed
    assert flux.counts == (1, 1)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    flux.encode(["a red circle"], max_sequence_length=9)
    flux.encode(["a blue circle"], max_sequence_length=7)
    flux.encode(["a red circle"], "a red circle", max_sequence_length=7)
    flux.encode(["a red circle"], max_sequence_length=7, num_images_per_prompt=2)
    assert flux.counts == (1, 5)


def test_another_pipeline_model_or_weights_encode_for_themselves(flux: MemoizedEncoder) -> None:
    weights = flux.model.text_weights(())
    encoders = [("generate", "tiny", weights), ("img2img", "tiny", weights), ("generate", "another", weights)]
    for task, name, own_weights in [*encoders, ("generate", "tiny", "others")]:
        pipe = flux.model.own_pipeline(task)
        memoize_encoders(pipe, name, own_weights, flux.memo, flux.recorder, watch_tokenizers(pipe))
        with torch.no_grad():
            pipe.encode_prompt(["a red circle"], max_sequence_length=7)
    assert flux.counts == (0, 4)


def test_a_model_that_is_loaded_again_encodes_anew(flux: MemoizedEncoder) -> None:
    flux.encode(["a red circle"], max_sequence_length=7)
    again = MemoizedEncoder(tiny_model("flux"))  # its files may be others
    again.memo = flux.memo
    again.encode(["a red circle"], max_sequence_length=7)
    again.model.close()
    assert again.counts == (0, 1)


def test_who_writes_into_what_it_got_changes_nothing_that_is_kept(flux: MemoizedEncoder) -> None:
    values = flux.encode(["a red circle"], max_sequence_length=7)
    expected = [value.clone() for value in values]
    for _ in range(2):
        values[0].zero_()
        values = flux.encode(["a red circle"], max_sequence_length=7)
        assert all(torch.equal(one, other) for one, other in zip(values, expected, strict=True))
    assert flux.counts == (2, 1)


def test_images_and_embeddings_in_the_arguments_are_not_kept(flux: MemoizedEncoder) -> None:
    embeds, pooled, _ = flux.encode(["a red circle"], max_sequence_length=7)
    for _ in range(2):
        given = flux.encode(None, prompt_embeds=embeds, pooled_prompt_embeds=pooled)
        assert torch.equal(given[0], embeds)
    assert flux.counts == (0, 1)

    class Pipe:
        """An image beside the prompt, as of an editing model."""

        def __init__(self) -> None:
            self.components: dict[str, Any] = {}
            self.calls = 0

        def encode_prompt(self, image: Any, prompt: str) -> torch.Tensor:
            self.calls += 1
            return torch.zeros(1)

        def __call__(self) -> None: ...

    pipe: Any = Pipe()
    memoize_encoders(pipe, "tiny", "own", flux.memo, flux.recorder, watch_tokenizers(pipe))
    for _ in range(2):
        pipe.encode_prompt(Image.new("RGB", (8, 8)), "a red circle")
        pipe.encode_prompt([Image.new("RGB", (8, 8))], "a red circle")
    assert (pipe.calls, flux.counts) == (4, (0, 1))


@pytest.mark.parametrize(("name", "own"), [("flux", 3), ("sd", 2)])
def test_negative_prompts_of_cfg_and_guidance_are_kept_too(name: str, own: int, make_job: Make) -> None:
    """`own` are the calls of the encoder by one request; Stable Diffusion encodes CFG's prompts in one."""
    model, side, memo, recorder = tiny_model(name), image_side(name), EncoderMemo(2**24), Recorder()
    job = make_job("a", width=side, height=side, guidance_scale=3.0, negative_prompt="a triangle", nag=NAG)
    images = [generate(model, job, memo=memo, recorder=recorder)[0].pixels for _ in range(2)]
    assert (recorder.of(Event.PROMPT_HIT), recorder.of(Event.PROMPT_MISS)) == (own, own)
    assert np.array_equal(images[0], images[1])


def test_edits_keep_their_prompts_too(make_job: Make) -> None:
    model, side, memo, recorder = tiny_model("flux"), image_side("flux"), EncoderMemo(2**24), Recorder()
    files = {color: png(Image.new("RGB", (side, side), color)) for color in ("red", "blue")}
    jobs = [make_job(color, width=side, height=side, **edit(0.5, color), nag=NAG) for color in files]
    for job in jobs:
        generate(model, job, files=files, memo=memo, recorder=recorder)
    assert (recorder.of(Event.PROMPT_HIT), recorder.of(Event.PROMPT_MISS)) == (2, 2)


@pytest.mark.parametrize("name", ["flux", "z-image"])
def test_a_prompt_is_read_alike_when_it_is_kept(name: str, make_job: Make) -> None:
    """Z-Image's pipeline writes its template into the list of prompts that it is given."""
    model, side, memo = tiny_model(name), image_side(name), EncoderMemo(2**24)
    if name == "z-image":
        model.pipe.tokenizer.chat_template = "circle {{ messages[0].content }}"
    job = make_job("a", prompt=" ".join(["circle"] * 120), width=side, height=side, nag=NAG)
    first, second = (generate(model, job, memo=memo)[0].warnings for _ in range(2))
    assert first == second
    assert [warning.endswith("has no effect") for warning in first] == [True]
    strict = make_job("b", prompt=job.request.prompt, width=side, height=side, strict=True)
    for kept in (memo, EncoderMemo(0)):
        with pytest.raises(PromptTooLong, match="has no effect"):
            generate(model, strict, memo=kept)


@pytest.mark.parametrize("name", ["flux", "sdxl", "sd3", "qwen-image", "sana", "chroma", "z-image", "auraflow"])
def test_the_images_of_a_job_encode_their_prompt_once(name: str, make_job: Make) -> None:
    """All are suspended in the text encoder before the first has a result to keep."""
    model, side = tiny_model(name), image_side(name)
    encoders = [part for key, part in model.pipe.components.items() if key.startswith("text_encoder")]
    rows: list[int] = []
    for encoder in encoders:
        encoder.register_forward_hook(lambda _, __, output: rows.append(len(output[0])))

    def encoded_rows(job: Job) -> int:
        rows.clear()
        images = generate(model, job)
        assert {image.batch_size for image in images} == {job.request.n}
        return sum(rows)

    job = {"prompt": "a red circle", "width": side, "height": side, "nag": NAG}
    assert encoded_rows(make_job("four", n=4, **job)) == encoded_rows(make_job("one", **job)) > 0


def test_calls_of_one_text_do_not_share_memory(flux: MemoizedEncoder) -> None:
    """Whoever continues first may write into what the encoder returned."""
    model = flux.model
    ids = torch.arange(14).view(2, 7)
    calls = [Coroutine(partial(model.pipe.text_encoder_2, ids[row : row + 1])) for row in (0, 1, 0, 0)]
    with torch.no_grad():
        alone = [model.pipe.text_encoder_2(ids[row : row + 1])[0] for row in (0, 1, 0, 0)]
        for call in calls:
            call.start()
        outputs = calls[0].suspended.module.run([call.suspended for call in calls])
        for call, output, expected in zip(calls, outputs, alone, strict=True):
            call.resume(output)
            assert torch.allclose(call.result[0], expected, atol=TOLERANCE)
            assert torch.allclose(call.result.last_hidden_state, expected, atol=TOLERANCE)
            call.result[0].zero_()


def test_it_holds_no_more_than_it_may_and_drops_the_least_recently_used() -> None:
    def prompt(values: Any) -> EncodedPrompt:
        return EncodedPrompt(values, {"a": (PromptReading("tokenizer", 1, 1),)})

    memo = EncoderMemo(bytes_max=100)
    prompts = {name: prompt((torch.zeros(5), [torch.zeros(5), None], {"x": 1})) for name in "abc"}  # 40 bytes each
    memo.put("a", prompts["a"])
    memo.put("b", prompts["b"])
    assert memo.get("a") is prompts["a"]
    memo.put("c", prompts["c"])
    assert (memo.held_bytes, len(memo), memo.get("b")) == (80, 2, None)
    memo.put("c", prompt((torch.zeros(1),)))
    assert memo.get("c") is prompts["c"]
    memo.put("large", prompt({"x": torch.zeros(26)}))
    assert (memo.held_bytes, len(memo), memo.get("large")) == (80, 2, None)
    memo.put("fits", prompt(torch.zeros(25)))
    assert (memo.held_bytes, len(memo)) == (100, 1)
