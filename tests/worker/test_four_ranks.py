"""A worker over four ranks, by Ulysses in pairs and a ring of the pairs, makes the images of one device."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.catalog import Parallelism
from app.jobs import Job
from tests.worker.generate import difference, run_jobs
from tests.worker.mixes import FILES, alone, image_mix
from tests.worker.ranks import of_model, started_engine

pytestmark = [
    pytest.mark.slow,  # starts a process for each rank
    # Of diffusers, which calls functions of torch by former names.
    pytest.mark.filterwarnings("ignore:`torch.distributed._functional_collectives:FutureWarning"),
]
BOTH = {"parallel": Parallelism(ulysses=2, ring=2), "attention": "_native_flash"}


def test_four_ranks_make_what_one_device_makes(make_job: Callable[..., Job]) -> None:
    jobs = image_mix(make_job, "shapes-flux")[1:8:2]
    with started_engine(4, {"flux-both": ("shapes-flux", BOTH)}) as engine:
        outputs = run_jobs(engine, *of_model(jobs, "flux-both"), files=FILES)
    for job, output in zip(jobs, outputs, strict=True):
        assert difference(output, alone(job)[0]) <= 1
