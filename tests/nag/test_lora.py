"""LoRAs whose weights or strength change while guidance keeps the negative prompt's keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from peft import LoraConfig

import nag
from nag.families import family_of
from tests.nag.support import Subject, difference
from tests.tiers import slow_but

NEGATIVE = "a blue square"

CHANGES: dict[str, Callable[[Any], object]] = {
    "weights": lambda unet: [p.mul_(-2.0) for name, p in unet.named_parameters() if "lora_B" in name],
    "exchanged": lambda unet: [setattr(p, "data", -2.0 * p) for name, p in unet.named_parameters() if "lora_B" in name],
    "strength": lambda unet: unet.set_adapters(["default"], [0.1]),
    "disabled": lambda unet: unet.disable_adapters(),
    "merged": lambda unet: unet.fuse_lora(lora_scale=0.5),
}


@pytest.mark.parametrize("change", slow_but(["weights", "merged"], CHANGES))
def test_a_lora_changed_in_mid_run_reaches_the_negatives_keys(change: str) -> None:
    """As in a run that keeps no keys at all."""

    def run(caches_text_kv: Any) -> tuple[Any, Any]:
        changed = Subject.named("sd")
        torch.manual_seed(2)
        lora = LoraConfig(r=2, init_lora_weights=False, target_modules=["to_k", "to_v"])
        changed.pipe.unet.add_adapter(lora)

        def after(pipe: Any, step: Any, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            if step == 1:
                with torch.no_grad():
                    CHANGES[change](pipe.unet)
            return kwargs

        family = type(family_of(changed.pipe))
        with mock.patch.object(family, "caches_text_kv", caches_text_kv), nag.guide(changed.pipe, NEGATIVE, scale=9.0):
            return changed.generate(callback_on_step_end=after), changed.generate()

    kept, unkept = run(True), run(False)
    assert difference(kept[0], unkept[0]) < 1e-6
    assert difference(kept[0], kept[1]) > 1e-3
