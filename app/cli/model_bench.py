"""`nag-server models bench NAME`: how long a model takes to load, to begin, to be back and to make an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import perf_counter

from rich.console import Console
from rich.table import Table

from app.catalog import Catalog, CatalogError
from app.settings import Settings

__all__ = ["bench_model"]


def bench_model(settings: Settings, name: str, images: int) -> int:
    """Prints the times of one model on this machine's device, and returns 1 if it cannot be loaded.

    images: made after the first one, for the steady time. Raises CatalogError.
    """
    known = Catalog.known(settings)
    if name not in known:
        raise CatalogError(f"no model {name!r}: there are {', '.join(known)}")
    if images < 1:
        raise CatalogError(f"--images must be at least 1, got {images}")
    # Here, as torch takes a while.
    from app.worker.devices import memory
    from app.worker.engine.pipeline_call import PipelineCall, run_calls
    from app.worker.engine.pipelines import load, resolve_device
    from app.worker.models.model_cache import ModelCache, ModelUnavailable, is_movable
    from app.worker.models.model_states import ModelStates
    from app.worker.models.warmup import trial_files, trial_jobs
    from app.worker.prompts.encoder_memo import EncoderMemo
    from app.worker.protocol import JobControl
    from app.worker.recorder import Recorder

    entry, device, recorder = known[name], resolve_device(settings.device), Recorder()
    budget = settings.model_memory_bytes or memory.budget_bytes(device)
    cache = ModelCache(
        known, device, budget, load, recorder, lambda: (), ModelStates(), settings.model_host_bytes
    )  # fmt: skip
    (job,) = trial_jobs(entry, 1)
    job = replace(job, request=replace(job.request, num_inference_steps=entry.num_inference_steps.default))
    files, memo = trial_files(entry), EncoderMemo(0)  # each prompt is encoded, as one that is new

    def make_image() -> None:
        run_calls([PipelineCall(0, cache.get(name), job, 0, files, JobControl(), device, memo, None, recorder)])

    try:
        load_s = _seconds(lambda: cache.get(name))
    except ModelUnavailable as error:
        Console(stderr=True).print(f"nag-server: {name}: {error}", style="red", markup=False, highlight=False)
        return 1
    first_s = _seconds(make_image)
    steady_s = median(_seconds(make_image) for _ in range(images))
    held_bytes = cache.held_bytes
    cache.drop(name)
    switch_s = _seconds(lambda: cache.get(name))
    is_kept = device.type != "cpu" and is_movable(entry) and held_bytes <= settings.model_host_bytes
    table = Table("", "seconds", title=f"{name} on {device}, {held_bytes / 10**9:.2f} GB")
    table.columns[1].justify = "right"
    for label, seconds in (
        ("load: from its files to the device", load_s),
        ("first image, compiled if the entry says so", first_s),
        (f"steady: an image by the defaults, guided, median of {images}", steady_s),
        (f"switch: back after another model, from {'main memory' if is_kept else 'its files'}", switch_s),
    ):
        table.add_row(label, f"{seconds:.2f}")
    Console().print(table)
    return 0


def _seconds(call: Callable[[], object]) -> float:
    begun_s = perf_counter()
    call()
    return perf_counter() - begun_s
