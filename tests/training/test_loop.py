import pytest
import torch
from torch import nn

from training import loop

pytestmark = pytest.mark.slow  # trains


@pytest.fixture
def train(monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)

    def run(name, stop_at=None, steps=20):
        torch.manual_seed(0)
        modules = nn.ModuleDict({"layer": nn.Linear(3, 3)})
        seen = []

        def loss(generator):
            if len(seen) == stop_at:
                raise KeyboardInterrupt
            x = torch.randn(8, 3, generator=generator)
            seen.append(x)
            return (modules["layer"](x) - x).square().mean()

        schedule = loop.Schedule(steps=steps, learning_rate=0.05, warmup_steps=2)
        loop.train(name, modules, loss, schedule, tmp_path / f"{name}.pt", seed=1)
        return modules["layer"].weight.detach(), len(seen)

    return run


def test_a_run_broken_off_and_resumed_ends_where_an_unbroken_one_does(train):
    whole, _ = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("broken", stop_at=12)
    resumed, steps = train("broken")
    assert steps == 8
    assert torch.equal(resumed, whole)


def test_a_finished_stage_is_loaded_and_not_trained(train):
    first, _ = train("stage")
    again, steps = train("stage")
    assert steps == 0
    assert torch.equal(again, first)
