"""The study's parts: its pairs, the rivals' rules against their equations, the scores of made-up readings."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from PIL import Image

import nag
from benchmarks.suppression import interval as interval_cfg
from benchmarks.suppression import rules
from benchmarks.suppression.figures import save_front
from benchmarks.suppression.methods import FAMILIES, NONE, Method, guiding
from benchmarks.suppression.pairs import Pair, pairs
from benchmarks.suppression.score import Score, interval, score
from benchmarks.suppression.study import Cell
from benchmarks.suppression.subject import Subject
from nag import NAGParams, normalized_attention_guidance
from training.shapes.judge import Reading
from training.shapes.world import Caption

pytestmark = pytest.mark.slow  # runs benchmarks

PLUS, MINUS = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind(0)
SCALE, TAU, ALPHA = (torch.tensor(value, dtype=torch.float64) for value in (4.0, 1.5, 0.5))


@pytest.mark.parametrize("clips", [False, True])
def test_the_halves_share_no_pair_and_negate_only_what_is_left_free(clips: bool) -> None:
    tune, held_out = pairs("tune", clips=clips), pairs("held-out", clips=clips)
    assert len(tune) + len(held_out) >= 60
    assert len(tune) == len(held_out)
    assert not set(tune) & set(held_out)
    for pair in (*tune, *held_out):
        named = {name for name, value in vars(pair.prompt).items() if value is not None}
        negated = {name for name, value in vars(pair.negative).items() if value is not None}
        assert negated
        assert not named & negated


@pytest.fixture(scope="module")
def subject() -> Any:
    return Subject.load("shapes-flux")


def test_every_number_of_a_method_reaches_the_guidance(subject: Any) -> None:
    method = Method("VSF", 3.0, 0.5, 1.5, end=0.75, scale_decay=0.5, start=0.1, blocks=range(2))
    with patch.object(nag, "guide", wraps=nag.guide) as guide, guiding(subject.pipe, method, ["a circle"]):
        pass
    given = {"reference": False, "scale": 3.0, "tau": 1.5, "alpha": 0.5, "end": 0.75, "scale_decay": 0.5}
    assert guide.call_args.kwargs == given | {"start": 0.1, "blocks": range(2), "method": "vsf"}


@pytest.mark.parametrize(("first", "guided"), [(0.25, 1), (0.5, 2), (0.75, 3), (1.0, 4)])
def test_a_share_of_the_steps_is_guided(subject: Any, first: float, guided: int) -> None:
    params = NAGParams(5.0, 2.5, 0.25, end=subject.end(first, 4))
    assert (
        sum(params.is_active_at(timestep, 1000.0) for timestep in subject.pipe.scheduler.timesteps.tolist()) == guided
    )


def test_nasa_subtracts() -> None:
    assert torch.allclose(rules.nasa(PLUS, MINUS, SCALE, TAU, ALPHA), PLUS - 3 * MINUS)


def test_without_normalization_only_mixes() -> None:
    expected = 0.5 * (4 * PLUS - 3 * MINUS) + 0.5 * PLUS
    assert torch.allclose(rules.without_normalization(PLUS, MINUS, SCALE, TAU, ALPHA), expected)


def test_l2_bounds_the_euclidean_norm() -> None:
    guided = rules.l2_norm(PLUS, MINUS, SCALE, TAU, torch.tensor(1.0))
    growth = guided.norm(dim=-1) / PLUS.norm(dim=-1)
    assert float(growth.max()) == pytest.approx(1.5)


def test_a_clip_rate_is_about_met() -> None:
    plus, minus = torch.randn(2, 2, 400, 16, generator=torch.Generator().manual_seed(1)).unbind(0)
    guided = rules.clip_rate(0.25)(plus, plus + 0.2 * minus, SCALE.float(), torch.tensor(2.5), torch.tensor(1.0))
    growth = guided.abs().sum(-1) / plus.abs().sum(-1)
    assert 0.1 < float((growth > 2.499).float().mean()) < 0.4


@pytest.mark.parametrize("rule", [rules.without_normalization, rules.l2_norm])
def test_a_rule_without_guidance_gives_back_the_positive(rule: Any) -> None:
    one = torch.tensor(1.0, dtype=torch.float64)
    for scale, alpha in ((one, ALPHA), (SCALE, 0 * one)):
        assert torch.allclose(rule(PLUS, MINUS, scale, TAU, alpha), PLUS)
    assert torch.allclose(normalized_attention_guidance(PLUS, MINUS, one, TAU, ALPHA), PLUS)


def test_the_front_is_drawn_of_what_has_been_read(tmp_path: Path) -> None:
    family = FAMILIES["NAG, first half"]
    read = [(Cell(4, "held-out", method), Score(256, 0.9, 0.9, 0.7, 1.0)) for method in (NONE, *family)]
    save_front([*read, (Cell(8, "held-out", NONE), read[0][1])], 4, tmp_path / "front.png", "Suppression: all")
    with Image.open(tmp_path / "front.png") as image:
        assert image.width > 1000


def test_scores_count_what_is_asked() -> None:
    pair = Pair(Caption(shape="circle"), Caption(color="red"))
    seen = [
        Reading("small", "red", "circle", "white", clean=True),
        Reading("small", "blue", "square", "white", clean=False),
    ]
    found = score([pair, pair], seen)
    assert (found.absent, found.kept, found.clean) == (0.5, 0.5, 0.5)
    assert found.diversity == pytest.approx((0 + 1 + 0) / 3)  # size, color, background; images have no motion


def test_an_interval_holds_its_share() -> None:
    low, high = interval(0.5, 256)
    assert low < 0.5 < high
    assert high - low == pytest.approx(0.1216, abs=1e-3)
    assert interval(0.0, 256)[0] == 0.0


class EchoDenoiser(torch.nn.Module):
    """Answers a call with what it is given."""

    def forward(self, rows: Any, timestep: Any) -> tuple[Any]:
        return (rows,)


@pytest.mark.parametrize("together", [True, False])
def test_cfg_that_ends_has_no_difference_left_to_scale(together: bool) -> None:
    denoiser, images = EchoDenoiser(), 2
    caption, negative = torch.ones(images, 3), torch.zeros(images, 3)
    differences = {}
    with interval_cfg.ending(denoiser, 0.25, images):
        for timestep in (1000.0, 750.0, 740.0, 250.0):
            if together:
                without, told = denoiser(torch.cat([negative, caption]), timestep)[0].chunk(2)
            else:
                told, without = denoiser(caption, timestep=timestep)[0], denoiser(negative, timestep=timestep)[0]
            differences[timestep] = float((told - without).abs().max())
            assert torch.equal(told, caption)
    assert differences == {1000.0: 1.0, 750.0: 1.0, 740.0: 0.0, 250.0: 0.0}
    assert torch.equal(denoiser(negative, 250.0)[0], negative)
