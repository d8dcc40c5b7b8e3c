"""`nag-server models list`, `models check`, `models check --memory` and `models pull`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn, track
from rich.table import Table
from rich.text import Text

from app.catalog import Catalog, CatalogError, CatalogLora, Model, NAGDefaults
from app.catalog.profiles import DEVICE_SHARE, GB, fitting_changes
from app.devices import device_sets
from app.settings import Settings

if TYPE_CHECKING:
    from app.catalog.profiles import Footprint
    from app.loading.size import ModelSize

__all__ = ["check_models", "fit_models", "list_models", "pull_models"]

INTERRUPTED = 130


def list_models(settings: Settings) -> None:
    """Prints every known model. Raises CatalogError."""
    catalog = Catalog.load(settings)
    table = Table("model", "served", "family", "size (px)", "steps", "CFG", "NAG: scale, tau, alpha, end")
    table.columns[0].no_wrap = True
    for model in Catalog.known(settings).values():
        nag = model.nag
        table.add_row(
            model.id,
            "default" if model.id == catalog.default else "yes" if model.id in catalog.models else "",
            model.family,
            _size(model),
            str(model.num_inference_steps.default),
            f"{model.guidance_scale.default:g}",
            _guidance(nag) if nag else "not supported",
        )
    Console().print(table)


def _guidance(nag: NAGDefaults) -> str:
    decay = f", scale decay {nag.scale_decay:g}" if nag.scale_decay else ""
    return f"{nag.scale:g}, {nag.tau:g}, {nag.alpha:g}, {nag.end:g}{decay}"


def _size(model: Model) -> str:
    frames = "" if model.num_frames is None else f", {model.num_frames.default} frames"
    return f"{model.width.default}x{model.height.default}{frames}"


def check_models(settings: Settings, names: Sequence[str] = (), *, cache: bool = False) -> int:
    """Prints what each model takes and what would keep it or a LoRA from running, and returns 1 if anything would;
    nothing is downloaded.

    names: models and LoRAs to look at, else every known one. cache: also print which weights are on this machine.
    Raises CatalogError.
    """
    known, loras = Catalog.known(settings), Catalog.known_loras(settings)
    names = _known_names(known, loras, names) or [*known, *(name for name in loras if name not in known)]
    from app.loading.checks import lora_problems, problems  # with torch, which takes a while
    from app.loading.size import model_size, recorded_size

    table = Table("model", "pipeline", "disk", "host", "device", *(("weights",) if cache else ()), "found")
    table.columns[0].no_wrap = True
    table.columns[1].overflow = "fold"
    wrong: list[str] = []
    missing: list[str] = []
    for name in track(names, "checking", console=Console(stderr=True), transient=True):
        model, lora = known.get(name), loras.get(name)
        if lora is not None:
            faults = lora_problems(lora, known[lora.base])
            wrong += [f"{name}: {fault}" for fault in faults]
            absent = _lora_to_download(lora) if cache else ""
            missing += [f"{name}: to download: {absent}"] if absent else []
            weights = ("to download" if absent else "here",) if cache else ()
            table.add_row(name, f"LoRA for {lora.base}", *_gigabytes(None), *weights, _verdict(faults))
        if model is None:
            continue
        faults = [*problems(model), *_device_faults(settings, model)]
        wrong += [f"{name}: {problem}" for problem in faults]
        absent = _to_download(model) if cache else ""
        missing += [f"{name}: to download: {absent}"] if absent else []
        weights = ("to download" if absent else "here",) if cache else ()
        size = model_size(model) or recorded_size(model)
        table.add_row(name, model.pipeline or "-", *_gigabytes(size), *weights, _verdict(faults))
    console = Console()
    console.print(table)
    console.print("GB of disk, of main memory in use with a GPU, and of device memory, for the weights alone")
    for line in (*missing, *wrong):
        print(line)
    return 1 if wrong else 0


def _device_faults(settings: Settings, model: Model) -> list[str]:
    """Returns why this machine's devices (NAG_DEVICES, NAG_NODES) are not those that the model asks for, if so."""
    if model.parallel is None:
        return []
    try:
        device_sets(settings, [model])
    except CatalogError as error:
        return [str(error)]
    return []


def fit_models(settings: Settings, names: Sequence[str], memories_gb: Sequence[float]) -> int:
    """Prints by which settings each model's weights fit devices of so much memory, and returns 1 if one fits by none.

    names: models to look at, else every known one. Raises CatalogError.
    """
    known = Catalog.known(settings)
    names = _known_names(known, {}, names) or list(known)
    from app.loading.size import footprint

    table = Table("model", *(f"{memory:g} GB" for memory in memories_gb))
    table.columns[0].no_wrap = True
    has_misfit = False
    for name in track(names, "computing", console=Console(stderr=True), transient=True):
        cells: list[str | Text] = []
        for memory in memories_gb:
            model = known[name]
            if footprint(model) is None:
                cells.append("?")
                continue
            changes = fitting_changes(model, memory, footprint)
            has_misfit = has_misfit or changes is None
            cells.append(_fit(model, changes, footprint))
        table.add_row(name, *cells)
    console = Console()
    console.print(table)
    share = f"{DEVICE_SHARE:.0%}"
    console.print(
        f"The setting, GB of the device and GB of main memory, for the weights alone: they fit if they take {share} of "
        "the device or less. own: as the entry says. cast: quantization = layerwise-fp8 of the largest components. "
        "model, group: offload. ?: the entry records no size, and its files are not on this machine."
    )
    return 1 if has_misfit else 0


def _fit(model: Model, changes: Mapping[str, Any] | None, footprint: Callable[[Model], Footprint | None]) -> str | Text:
    if changes is None:
        return Text("none", "red")
    size = footprint(model.model_copy(update=dict(changes)))
    assert size is not None
    names = [*(["cast"] if "quantization" in changes else []), *([changes["offload"]] if "offload" in changes else [])]
    return f"{' + '.join(names) or 'own'} {size.device_bytes / GB:.1f} / {size.host_bytes / GB:.1f}"


def pull_models(settings: Settings, names: Sequence[str] = ()) -> int:
    """Downloads the files of models and LoRAs, unless some are named of those that are served; 1 if any could not be
    had.

    Raises CatalogError.
    """
    known, catalog = Catalog.known(settings), Catalog.load(settings)
    names = _known_names(known, catalog.loras, names) or _served_names(catalog)
    from app.loading.download import download, download_lora
    from app.loading.errors import LoadError

    failed = False
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=(console := Console(stderr=True))) as progress:
        for name in names:
            task = progress.add_task(name, total=None)
            try:
                if name in known:
                    download(known[name], partial(_show, progress, task))
                if name in catalog.loras:
                    download_lora(catalog.loras[name], partial(_show, progress, task))
            except LoadError as exc:
                failed = True
                progress.remove_task(task)
                console.print(f"nag-server: {exc}", style="red", markup=False, highlight=False, soft_wrap=True)
            except KeyboardInterrupt:
                progress.stop()
                os._exit(INTERRUPTED)  # the threads that download would be waited for
    return 1 if failed else 0


def _show(progress: Progress, task: TaskID, done_bytes: int, total_bytes: int) -> None:
    progress.update(task, completed=done_bytes, total=total_bytes)


def _served_names(catalog: Catalog) -> list[str]:
    """Returns the models that are served, and the LoRAs that they take."""
    return list(dict.fromkeys([*catalog.models, *catalog.served_loras]))


def _known_names(known: Mapping[str, Model], loras: Mapping[str, CatalogLora], names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in known and name not in loras:
            raise CatalogError(f"no model or LoRA {name!r}: there are {', '.join([*known, *loras])}")
    return list(names)


def _verdict(problems: Sequence[str]) -> str | Text:
    return Text(f"{len(problems)} wrong", "red") if problems else "ok"


def _gigabytes(size: ModelSize | None) -> tuple[str, str, str]:
    if size is None:
        return "?", "?", "?"
    disk, host, device = (
        "?" if value is None else f"{value / GB:.1f}" for value in (size.disk_bytes, size.host_bytes, size.device_bytes)
    )
    return disk, host, device


def _to_download(model: Model) -> str:
    """Returns the size of the entry's files that are not on this machine; empty if all are."""
    from app.loading.errors import LoadError
    from app.loading.hub import files_of

    try:
        absent = [file for file in files_of(model) if file.path is None]
    except LoadError as exc:
        return exc.why
    gigabytes = sum(file.size_bytes for file in absent) / GB
    return f"{len(absent)} files, {gigabytes:.1f} GB" if absent else ""


def _lora_to_download(lora: CatalogLora) -> str:
    """Returns the size of the LoRA's file if it is not on this machine; otherwise an empty text."""
    from app.loading.errors import LoadError
    from app.loading.hub import lora_file

    try:
        file = lora_file(lora)
    except LoadError as exc:
        return exc.why
    return "" if file.path is not None else f"1 file, {file.size_bytes / GB:.1f} GB"
