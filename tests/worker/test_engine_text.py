"""Text encoders in the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import CLIPTextModel

from app.jobs import Job, JobError
from app.worker.engine.job_errors import OUT_OF_MEMORY
from app.worker.engine.torch_engine import TorchEngine
from app.worker.protocol import JobControl
from tests.limits import HANG_S

TOKENS_MAX = 5  # different ones


def test_a_prompt_that_memory_does_not_suffice_for_fails_alone(
    engine: TorchEngine, make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = CLIPTextModel.forward

    def forward(self: Any, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if len(input_ids) > 1 or input_ids.unique().numel() > TOKENS_MAX:
            raise torch.OutOfMemoryError("as in a test")
        return encode(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(CLIPTextModel, "forward", forward)
    jobs = [make_job("large", prompt="a small red circle on a white background"), make_job("fits", prompt="a circle")]
    large, fits = (engine.submit(job, {}, JobControl()) for job in jobs)
    assert not isinstance(fits.result(HANG_S), JobError)
    assert large.result(HANG_S) == OUT_OF_MEMORY
