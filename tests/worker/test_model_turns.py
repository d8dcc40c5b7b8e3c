from __future__ import annotations

from app.worker.model_turns import STAY, ModelTurns


def claimed(turns: ModelTurns, waiting: set[str], warm: set[str], share: float = 1.0) -> str:
    """The first in turn that has work, on a worker that may load any model."""
    model = next(model for model in turns.order(warm, "abc") if model in waiting)
    turns.note_claim(model, warm, share)
    return model


def test_warm_models_take_turns() -> None:
    turns = ModelTurns("abc")
    assert [claimed(turns, set("abc"), set("abc")) for _ in range(6)] == list("abcabc")


def test_a_model_without_work_keeps_its_turn() -> None:
    turns = ModelTurns("abc")
    assert [claimed(turns, set("bc"), set("abc")) for _ in range(3)] == list("bcb")
    assert claimed(turns, set("abc"), set("abc")) == "a"


def test_a_cold_model_waits_for_some_rooms_full_of_warm_ones_and_no_longer() -> None:
    turns = ModelTurns("ab")
    stay = round(STAY / 0.5)
    assert [claimed(turns, set("ab"), {"a"}, 0.5) for _ in range(stay + 1)] == ["a"] * stay + ["b"]
    # It is the warm one now.
    assert [claimed(turns, set("ab"), {"b"}, 0.5) for _ in range(stay + 1)] == ["b"] * stay + ["a"]


def test_a_cold_model_is_next_if_no_warm_one_has_work() -> None:
    assert claimed(ModelTurns("ab"), {"b"}, {"a"}) == "b"


def test_before_its_turn_a_cold_model_that_cannot_be_loaded_beside_the_others_is_left_out() -> None:
    turns = ModelTurns("abc")
    assert turns.order({"b"}, {"c"}) == ["b", "c"]
    turns.note_claim("b", {"b"}, STAY)
    assert turns.order({"b"}, {"c"}) == ["a", "c", "b"]
