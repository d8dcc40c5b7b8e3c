from __future__ import annotations

from app.worker.model_turns import STAY, ModelTurns


def served(turns: ModelTurns, waiting: set[str], warm: set[str]) -> str:
    """The first in turn that has work."""
    model = next(each for each in turns.order(warm) if each in waiting)
    turns.served(model, warm)
    return model


def test_warm_models_take_turns() -> None:
    turns = ModelTurns("abc")
    assert [served(turns, set("abc"), set("abc")) for _ in range(6)] == list("abcabc")


def test_a_model_without_work_keeps_its_turn() -> None:
    turns = ModelTurns("abc")
    assert [served(turns, set("bc"), set("abc")) for _ in range(3)] == list("bcb")
    assert served(turns, set("abc"), set("abc")) == "a"


def test_a_cold_model_waits_for_some_batches_of_warm_ones_and_no_longer() -> None:
    turns = ModelTurns("ab")
    assert [served(turns, set("ab"), {"a"}) for _ in range(STAY + 1)] == ["a"] * STAY + ["b"]
    # It is the warm one now.
    assert [served(turns, set("ab"), {"b"}) for _ in range(STAY + 1)] == ["b"] * STAY + ["a"]


def test_a_cold_model_is_next_where_no_warm_one_has_work() -> None:
    assert served(ModelTurns("ab"), {"b"}, {"a"}) == "b"
