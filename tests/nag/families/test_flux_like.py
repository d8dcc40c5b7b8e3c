"""What is particular to the models built as Flux.1 is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nag
from nag.families import family_of
from tests.nag.support import Subject, difference

NEGATIVE = "a blue square"
LIKE = ("chroma", "flux2", "flux2-klein-picture", "flux2-klein-kv", "longcat-image", "ovis-image", "bria")


def subject_of(name: str) -> Subject:
    return Subject.named(name)


@pytest.mark.parametrize("name", LIKE)
def test_the_positions_of_a_shorter_negative_are_the_first_of_the_prompts(name: str) -> None:
    subject = subject_of(name)
    embeds = subject.encode(NEGATIVE)["negative_prompt_embeds"][:, :7]
    pipe = subject.pipe
    family = family_of(pipe)
    seen: list[torch.Tensor] = []
    call = subject.calls(num_inference_steps=1)[0][0]
    pack = type(family).pack

    def watch(self: Any, call: Any, negative: Any) -> Any:
        packed = pack(self, call, negative)
        seen.append(packed["txt_ids"])
        return packed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(family), "pack", watch)
        with nag.guide(pipe, negative_prompt_embeds=embeds, scale=6.0):
            guided = subject.generate(num_inference_steps=1)
    ids = call["txt_ids"]
    assert torch.equal(seen[0], torch.cat([ids, ids[..., :7, :]], dim=-2))
    assert difference(guided, subject.generate(num_inference_steps=1)) > 1e-4


def test_an_empty_negative_is_zeros_as_the_bria_pipeline_has_it() -> None:
    subject = subject_of("bria")
    options = {"max_sequence_length": 15}
    with torch.no_grad():
        _, theirs, _ = subject.pipe.encode_prompt("a", negative_prompt="", **options)
        ours = family_of(subject.pipe).encode(subject.pipe.encode_prompt, ["", NEGATIVE], {"prompt": "a"} | options)
    assert torch.equal(ours.embeds[:1], theirs)
    assert ours.embeds[1].abs().sum() > 0


def test_the_reference_images_keys_are_kept_by_klein_kv_and_steer_the_picture() -> None:
    subject = subject_of("flux2-klein-kv")
    with nag.guide(subject.pipe, NEGATIVE, scale=6.0):
        with_picture, without = subject.generate(), subject.generate(image=None)
    assert difference(with_picture, without) > 1e-3
