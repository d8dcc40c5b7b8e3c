from __future__ import annotations

from app.worker.jobs.model_rotation import STAY, ModelRotation


def claimed(rotation: ModelRotation, waiting: set[str], warm: set[str], share: float = 1.0) -> str:
    """The first in turn that has work, on a worker that may load any model."""
    model = next(model for model in rotation.order(warm, "abc") if model in waiting)
    rotation.note_claim(model, warm, share)
    return model


def test_warm_models_take_turns() -> None:
    rotation = ModelRotation("abc")
    assert [claimed(rotation, set("abc"), set("abc")) for _ in range(6)] == list("abcabc")


def test_a_model_without_work_keeps_its_turn() -> None:
    rotation = ModelRotation("abc")
    assert [claimed(rotation, set("bc"), set("abc")) for _ in range(3)] == list("bcb")
    assert claimed(rotation, set("abc"), set("abc")) == "a"


def test_a_cold_model_waits_for_some_rooms_full_of_warm_ones_and_no_longer() -> None:
    rotation = ModelRotation("ab")
    stay = round(STAY / 0.5)
    assert [claimed(rotation, set("ab"), {"a"}, 0.5) for _ in range(stay + 1)] == ["a"] * stay + ["b"]
    # It is the warm one now.
    assert [claimed(rotation, set("ab"), {"b"}, 0.5) for _ in range(stay + 1)] == ["b"] * stay + ["a"]


def test_a_cold_model_is_next_if_no_warm_one_has_work() -> None:
    assert claimed(ModelRotation("ab"), {"b"}, {"a"}) == "b"


def test_before_its_turn_a_cold_model_that_cannot_be_loaded_beside_the_others_is_left_out() -> None:
    rotation = ModelRotation("abc")
    assert rotation.order({"b"}, {"c"}) == ["b", "c"]
    rotation.note_claim("b", {"b"}, STAY)
    assert rotation.order({"b"}, {"c"}) == ["a", "c", "b"]
