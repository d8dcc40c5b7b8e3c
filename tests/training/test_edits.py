"""Edits by instruction, against the judge that reads attributes from the pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from training.shapes.edits import ATTRIBUTES, COMPARATIVES, INSTRUCTION_WORDS, VALUES, Edits, Instruction
from training.shapes.judge import Reading, read
from training.shapes.world import WORDS


def to_bytes(images: Any) -> Any:
    return ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module")
def edits() -> Any:
    return Edits.sample(200, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def readings(edits: Any) -> tuple[Any, Any]:
    return list(read(to_bytes(edits.references()))), list(read(to_bytes(edits.render())))


def test_an_edit_obeys_its_instruction_and_keeps_the_rest(edits: Any, readings: tuple[Any, Any]) -> None:
    instructions = edits.captions(torch.Generator().manual_seed(1))
    assert {instruction.attribute for instruction in instructions} == set(ATTRIBUTES)
    assert any(instruction.value is None for instruction in instructions)
    for instruction, before, after in zip(instructions, *readings, strict=True):
        assert after.clean
        assert instruction.is_obeyed(before, after)
        assert instruction.is_rest_kept(before, after)
        assert not instruction.is_obeyed(before, before)


def test_an_edit_leaves_the_object_where_it_was(readings: tuple[Any, Any]) -> None:
    for before, after in zip(*readings, strict=True):
        assert np.allclose(before.place, after.place, atol=1.0)


def test_an_instruction_is_not_kept_by_an_edit_of_something_else(edits: Any, readings: tuple[Any, Any]) -> None:
    instructions = edits.captions(torch.Generator().manual_seed(1))
    for instruction, before, after in zip(instructions, *readings, strict=True):
        other = Instruction(ATTRIBUTES[(ATTRIBUTES.index(instruction.attribute) + 1) % len(ATTRIBUTES)])
        assert not other.is_rest_kept(before, after)
        assert not other.is_obeyed(before, after)


def test_an_attribute_without_a_name_does_not_obey() -> None:
    before, after = Reading("small", "red", "circle", "white", True), Reading("small", None, "circle", "white", False)
    assert not Instruction("color").is_obeyed(before, after)
    assert Instruction("color").is_rest_kept(before, after)
    assert not Instruction("size").is_rest_kept(before, after)


def test_an_instruction_names_its_value_and_nothing_else(edits: Any) -> None:
    values = {value for group in VALUES.values() for value in group}
    sizes = {comparative: size for size, comparative in COMPARATIVES.items()}
    seen = set()
    for seed in range(10):
        for instruction in edits.captions(torch.Generator().manual_seed(seed)):
            words = str(instruction).split()
            named = {sizes.get(word, word) for word in words} & values
            assert named == {instruction.value} - {None}
            seen.update(words)
    assert seen <= set(INSTRUCTION_WORDS)
    assert set(INSTRUCTION_WORDS) - set(WORDS) <= seen, "every new word is used"
