from __future__ import annotations

from pathlib import Path

import pytest
from transformers import T5Tokenizer

from training import text
from training.shapes.world import WORDS


def test_each_word_of_the_world_is_one_token_in_both_tokenizers() -> None:
    clip, t5 = text.clip_tokenizer(WORDS), text.t5_tokenizer(WORDS)
    assert all(len(clip(word).input_ids) == 3 for word in WORDS)
    assert all(len(t5(word).input_ids) == 2 for word in WORDS)


def test_an_unknown_word_keeps_its_spelling() -> None:
    t5 = text.t5_tokenizer(WORDS)
    assert t5("glasses").input_ids != t5("grasses").input_ids
    assert t5.unk_token_id not in t5("glasses").input_ids


def test_tokenizers_come_back_from_a_folder_unchanged(tmp_path: Path) -> None:
    caption = "a small red circle on a white background, glasses"
    for tokenizer in (text.clip_tokenizer(WORDS), text.t5_tokenizer(WORDS)):
        tokenizer.save_pretrained(tmp_path / type(tokenizer).__name__)
        loaded = type(tokenizer).from_pretrained(tmp_path / type(tokenizer).__name__)
        assert loaded(caption).input_ids == tokenizer(caption).input_ids


def test_ids_are_the_same_every_time() -> None:
    first = text.clip_tokenizer(WORDS).get_vocab()
    assert all(text.clip_tokenizer(WORDS).get_vocab() == first for _ in range(8))


@pytest.mark.parametrize(
    "spelling",
    ["Red Circle", "RED CIRCLE", "Ｒｅｄ circle", "“red” circle!", "(red) circle", "red\u00a0circle", "red_circle"],
)
def test_t5_reads_a_caption_however_it_is_spelled(spelling: str) -> None:
    t5 = text.t5_tokenizer(WORDS)
    assert t5(spelling).input_ids == t5("red circle").input_ids


def test_punctuation_inside_words_separates_them() -> None:
    t5 = text.t5_tokenizer(WORDS)
    assert t5("red,circle").input_ids == t5("red, circle").input_ids


def test_a_caption_of_the_world_has_the_ids_that_the_weights_were_trained_with() -> None:
    """transformers' own class for T5's layout, by which the embedded weights were trained."""
    t5 = text.t5_tokenizer(WORDS)
    pieces = sorted(t5.get_vocab(), key=t5.get_vocab().__getitem__)
    scores = {"▁": -6.0, **{word: -2.0 for word in pieces if len(word) > 1}}
    plain = T5Tokenizer(vocab=[(piece, scores.get(piece, -10.0)) for piece in pieces], extra_ids=0)
    for caption in ("a small red circle on a white background, glasses", "a shape.", "blue  square\n", ""):
        assert t5(caption).input_ids == plain(caption).input_ids
