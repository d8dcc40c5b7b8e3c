"""`nag-server models list` and `models check`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from app.catalog import Catalog, CatalogError, Model, NAGDefaults, Source
from app.settings import Settings

__all__ = ["check_models", "list_models"]


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
    annealed = f", annealed {nag.anneal:g}" if nag.anneal else ""
    return f"{nag.scale:g}, {nag.tau:g}, {nag.alpha:g}, {nag.end:g}{annealed}"


def _size(model: Model) -> str:
    frames = "" if model.num_frames is None else f", {model.num_frames.default} frames"
    return f"{model.width.default}x{model.height.default}{frames}"


def check_models(settings: Settings, names: Sequence[str] = (), *, cache: bool = False) -> int:
    """Prints what would keep each model from loading, and returns 1 if anything would; nothing is downloaded.

    names: those to look at, else every known model. cache: also tell which weights are on this machine.
    Raises CatalogError.
    """
    known = Catalog.known(settings)
    for name in names:
        if name not in known:
            raise CatalogError(f"no model {name!r}: there are {', '.join(known)}")
    from app.worker.checks import problems  # with torch, which takes a while

    table = Table("model", "pipeline", *(("weights",) if cache else ()), "found")
    table.columns[0].no_wrap = True
    wrong: list[str] = []
    missing: list[str] = []
    for name in track(names or list(known), "checking", console=Console(stderr=True), transient=True):
        model = known[name]
        found = problems(model)
        wrong += [f"{name}: {each}" for each in found]
        absent = _to_download(model) if cache else []
        missing += [f"{name}: to download: {each}" for each in absent]
        weights = ("to download" if absent else "here",) if cache else ()
        table.add_row(name, model.pipeline or "-", *weights, Text(f"{len(found)} wrong", "red") if found else "ok")
    Console().print(table)
    for line in (*missing, *wrong):
        print(line)
    return 1 if wrong else 0


def _to_download(model: Model) -> list[str]:
    """The entry's files that are not on this machine; a repository's index stands for all that is in it."""
    from huggingface_hub import try_to_load_from_cache

    files: list[tuple[Source, str]] = [(model, "model_index.json"), *((each, each.weight_name) for each in model.lora)]
    if model.denoiser is not None:
        files.append((model.denoiser, model.denoiser.weight_name))
    return [
        f"{source.repository}/{name}"
        for source, name in files
        if not Path(source.repository).is_dir()
        and not isinstance(try_to_load_from_cache(source.repository, name, revision=source.revision), str)
    ]
