from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from app.jobs import Job, JobError
from app.worker import engine as engine_module
from app.worker.denoise import Denoised
from app.worker.engine import TorchEngine
from app.worker.work import Control, Made, Stopped

Make = Callable[..., Job]


def pixels(made: Made | JobError, index: int = 0) -> np.ndarray:
    assert isinstance(made, Made)
    return np.asarray(Image.open(io.BytesIO(made.files[index])), dtype=np.int16)


def test_n_pictures_are_n_seeds_whatever_the_batch(engine: TorchEngine, make_job: Make) -> None:
    job = make_job("many", n=5, seed=10)
    control = Control()
    made = engine.run([make_job("other"), job], control)["many"]
    assert isinstance(made, Made)
    assert made.seeds == (10, 11, 12, 13, 14)
    assert (made.batch_size, made.media_type) == (4, "image/png")
    assert control.step == 2
    for index in (0, 4):
        alone = engine.run([make_job("alone", seed=10 + index)], Control())["alone"]
        assert np.abs(pixels(alone) - pixels(made, index)).max() <= 1


def test_formats_are_per_job(engine: TorchEngine, make_job: Make) -> None:
    made = engine.run([make_job("a", output_format="webp"), make_job("b", output_format="jpeg")], Control())
    assert [each.media_type for each in made.values() if isinstance(each, Made)] == ["image/webp", "image/jpeg"]


def test_a_stopped_batch_is_left_between_two_steps(engine: TorchEngine, make_job: Make) -> None:
    control = Control(stopping=True)
    with pytest.raises(Stopped):
        engine.run([make_job("a")], control)
    assert control.step == 0


def test_pixels_that_are_not_numbers_fail_their_job_alone(
    engine: TorchEngine, make_job: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = engine_module.denoise

    def spoilt(*arguments: object) -> Denoised:
        done = original(*arguments)  # type: ignore[arg-type]
        done.pixels[0, 3, 4, 1] = np.nan
        return done

    monkeypatch.setattr(engine_module, "denoise", spoilt)
    made = engine.run([make_job("a"), make_job("b")], Control())
    assert isinstance(made["a"], JobError)
    assert made["a"].code == "invalid_output"
    assert isinstance(made["b"], Made)
