"""Every small pipeline whose prompts are kept: the picture is the same from kept rows, mixed as they come."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from peft import LoraConfig

import nag
from app.worker.prompts import EncodedPrompt, PromptCache, encoding_kept
from app.worker.recorder import Event, Recorder
from nag.families import family_of, registered_families
from tests.nag.support import Subject, difference
from tests.tiny import CASES, Case

PROMPTS = ["a red circle", "a blue square", "a small green triangle on a white background"]
NEGATIVES = ["a red shape", "", "a triangle"]
TOLERANCE = 1e-5  # of the norm; text is encoded in batches of another size


class Kept(Subject):
    def __init__(self, case: Case, most_bytes: int = 2**30) -> None:
        super().__init__(case)
        self.whole = self.pipe
        self.cache = PromptCache(most_bytes)
        self.recorder = Recorder()

    def run(self, rows: Sequence[int], *, kept: bool = True, cfg: bool = False, guided: bool = False) -> Any:
        takes = inspect.signature(self.whole.__call__).parameters
        negatives = [NEGATIVES[row] for row in rows]
        self.pipe = copy.copy(self.whole)
        with ExitStack() as stack:
            if kept:
                stack.enter_context(encoding_kept(self.pipe, "tiny", self.cache, self.recorder))
            if guided:
                stack.enter_context(nag.guide(self.pipe, negative_prompt=negatives))
            more = {"negative_prompt": negatives} if cfg and "negative_prompt" in takes else {}
            return self.generate(
                [PROMPTS[row] for row in rows], list(rows), cfg=cfg, num_inference_steps=2, **more
            )  # fmt: skip

    @property
    def counts(self) -> tuple[int, int]:
        return self.recorder.of(Event.PROMPT_HIT), self.recorder.of(Event.PROMPT_MISS)


NAMES = (
    "flux", "sd", "sdxl", "sd3", "wan", "wan-i2v", "qwen-image", "sana", "sana-sprint", "pixart", "pixart-alpha",
    "chroma", "ltx", "z-image", "kolors", "skyreels", "sanavideo",
)  # fmt: skip
BY_NAME = {case.name: case for case in CASES}


def test_every_family_whose_prompts_are_kept_is_tried() -> None:
    kept = {family.name for family in registered_families() if family.encoded_rows is not None}
    assert {family_of(BY_NAME[name].make(0)).name for name in NAMES} == kept


@pytest.mark.parametrize("cfg", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_pictures_of_kept_prompts_are_the_same(name: str, cfg: bool) -> None:
    if cfg and BY_NAME[name].cfg is None:
        pytest.skip("has no CFG")
    subject = Kept(BY_NAME[name])
    expected = subject.run([1, 0], kept=False, cfg=cfg, guided=True)
    for rows in ([0, 2], [1]):  # each beside others than it will be, the first beside a longer one
        subject.run(rows, cfg=cfg, guided=True)
    hits, misses = subject.counts
    assert difference(subject.run([1, 0], cfg=cfg, guided=True), expected) < TOLERANCE
    assert subject.recorder.of(Event.PROMPT_MISS) == misses
    assert subject.recorder.of(Event.PROMPT_HIT) == hits + (6 if cfg else 4)


def test_one_prompt_twice_is_encoded_once_and_other_settings_are_another() -> None:
    subject = Kept(BY_NAME["flux"])
    subject.run([0, 0, 0])
    assert subject.counts == (2, 1)
    pipe = copy.copy(subject.whole)
    with encoding_kept(pipe, "tiny", subject.cache, subject.recorder), torch.no_grad():
        pipe.encode_prompt([PROMPTS[0]], max_sequence_length=7)
    assert subject.counts == (2, 2)


def test_an_adapter_on_the_text_encoder_is_another_prompt() -> None:
    subject = Kept(BY_NAME["sd"])
    subject.run([0])
    encoder = subject.whole.text_encoder
    encoder.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]))
    subject.run([0])
    encoder.disable_adapters()
    subject.run([0])
    assert subject.counts == (0, 3)


def test_what_cannot_be_told_apart_is_encoded_anew() -> None:
    subject = Kept(BY_NAME["flux"])
    pipe = copy.copy(subject.whole)
    with encoding_kept(pipe, "tiny", subject.cache, subject.recorder), torch.no_grad():
        embeds = pipe.encode_prompt([PROMPTS[0]], max_sequence_length=7)
        hits = subject.counts
        again = pipe.encode_prompt(None, prompt_embeds=embeds[0], pooled_prompt_embeds=embeds[1])
        twice = pipe.encode_prompt([PROMPTS[0]], num_images_per_prompt=2, max_sequence_length=7)
    assert subject.counts == hits
    assert torch.equal(again[0], embeds[0])
    assert len(twice[0]) == 2
    assert "encode_prompt" not in vars(pipe)


def test_the_cache_holds_no_more_than_it_may_and_lets_the_least_recently_used_go() -> None:
    cache = PromptCache(most_bytes=100)
    rows = {name: EncodedPrompt((torch.zeros(10), None)) for name in "abc"}  # 40 bytes each
    cache.put("a", rows["a"])
    cache.put("b", rows["b"])
    assert cache.get("a") is rows["a"]
    cache.put("c", rows["c"])
    assert (cache.held_bytes, len(cache), cache.get("b")) == (80, 2, None)
    cache.put("large", EncodedPrompt((torch.zeros(26),)))
    cache.put("list", EncodedPrompt(([torch.zeros(26)],)))
    assert (cache.held_bytes, cache.get("large"), cache.get("list")) == (80, None, None)
