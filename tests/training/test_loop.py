from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from training import loop

pytestmark = pytest.mark.slow  # trains


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)

    def run(name: str, stop_at: Any = None, steps: int = 20) -> tuple[Any, Any]:
        torch.manual_seed(0)
        layer = nn.Linear(3, 3)
        modules = nn.ModuleDict({"layer": layer})
        seen: list[Any] = []

        def loss(generator: torch.Generator) -> Any:
            if len(seen) == stop_at:
                raise KeyboardInterrupt
            x = torch.randn(8, 3, generator=generator)
            seen.append(x)
            return (layer(x) - x).square().mean()

        schedule = loop.Schedule(steps=steps, learning_rate=0.05, warmup_steps=2)
        loop.train(name, modules, loss, schedule, tmp_path / f"{name}.pt", seed=1)
        return layer.weight.detach(), len(seen)

    return run


def test_a_run_broken_off_and_resumed_ends_where_an_unbroken_one_does(train: Any) -> None:
    whole, _ = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("broken", stop_at=12)
    resumed, steps = train("broken")
    assert steps == 8
    assert torch.equal(resumed, whole)


def test_a_finished_stage_is_loaded_and_not_trained(train: Any) -> None:
    first, _ = train("stage")
    again, steps = train("stage")
    assert steps == 0
    assert torch.equal(again, first)
