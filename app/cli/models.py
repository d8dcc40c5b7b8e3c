"""`nag-server models list` and `models check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from app.catalog import Catalog, Model
from app.settings import Settings

__all__ = ["check_models", "list_models"]


def list_models(settings: Settings) -> None:
    """Prints the catalog. Raises CatalogError."""
    catalog = Catalog.load(settings)
    table = Table("model", "family", "size (px)", "steps", "CFG", "NAG scale, tau, alpha, end")
    for model in catalog.models.values():
        nag = model.nag
        table.add_row(
            f"{model.id} (default)" if model.id == catalog.default else model.id,
            model.family,
            _size(model),
            str(model.num_inference_steps.default),
            f"{model.guidance_scale.default:g}",
            f"{nag.scale:g}, {nag.tau:g}, {nag.alpha:g}, {nag.end:g}" if nag else "not supported",
        )
    Console().print(table)


def _size(model: Model) -> str:
    frames = "" if model.num_frames is None else f", {model.num_frames.default} frames"
    return f"{model.width.default}x{model.height.default}{frames}"


def check_models(settings: Settings) -> int:
    """Prints what would keep each model from loading; returns 1 if anything would. Raises CatalogError."""
    catalog = Catalog.load(settings)
    table = Table("model", "pipeline", "found")
    failures = 0
    for model in track(catalog.models.values(), "checking", console=Console(stderr=True), transient=True):
        pipeline, problem = _check(model)
        failures += problem is not None
        table.add_row(model.id, pipeline, Text("ok") if problem is None else Text(problem, "red"))
    Console().print(table)
    return min(failures, 1)


def _check(model: Model) -> tuple[str, str | None]:
    """The pipeline's class, "-" where it is not known, and what is wrong, or None."""
    folder = Path(model.path)
    if not folder.is_dir():
        return _check_hub(model.path)
    index = folder / "model_index.json"
    if not index.is_file():
        return "-", f"no model_index.json in {folder}"
    return _check_index(index)


def _check_hub(name: str) -> tuple[str, str | None]:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        index = try_to_load_from_cache(name, "model_index.json")
    except HFValidationError:
        return "-", f"no folder {name}"
    if not isinstance(index, str):
        return "-", f"no folder {name}, and no such model downloaded from the Hugging Face hub"
    return _check_index(Path(index))


def _check_index(path: Path) -> tuple[str, str | None]:
    import diffusers
    import transformers

    transformers.logging.set_verbosity_error()  # its advice on image processors belongs to no model here
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        name = str(index["_class_name"])
    except (ValueError, LookupError, TypeError) as exc:
        return "-", f"model_index.json: {type(exc).__name__}: {exc}"
    if not hasattr(diffusers, name):
        return name, f"diffusers {diffusers.__version__} has no {name}"
    libraries = {"diffusers": diffusers, "transformers": transformers}
    for part, entry in index.items():
        if part.startswith("_") or not isinstance(entry, list) or entry[0] is None:
            continue
        library, kind = entry
        if library in libraries and not hasattr(libraries[library], kind):
            return name, f"{part}: {library} has no {kind}"
        if not (path.parent / part).is_dir():
            return name, f"{part}: no such folder beside model_index.json"
    return name, None
