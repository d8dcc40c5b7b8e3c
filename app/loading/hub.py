"""The files of a catalog entry: which it needs, and which are on this machine. Nothing is asked of the network.

A repository also holds READMEs, single-file copies and other precisions; an entry needs only what diffusers loads.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from diffusers.pipelines import pipeline_loading_utils as diffusers_files
from diffusers.utils.constants import TRANSFORMERS_COMPONENT_AUX_FILES
from huggingface_hub import errors

from app.catalog import CatalogLora, Model, Source
from app.loading.errors import LoadError

__all__ = ["INDEX", "File", "denoiser_name", "files_of", "has_files", "local_file", "lora_file", "model_index"]

INDEX, CONFIG = "model_index.json", "config.json"
#: Weights at the top of a repository that is one component.
COMPONENT_WEIGHTS = re.compile(r"diffusion_pytorch_model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


@dataclass(frozen=True)
class File:
    """A file that an entry needs. component: the pipeline's part it belongs to, "" for none or a LoRA's file."""

    source: Source
    name: str
    size_bytes: int
    component: str = ""

    @property
    def path(self) -> Path | None:
        """Where it is on this machine; None if it is not."""
        folder = Path(self.source.repository)
        if folder.is_dir():
            return folder / self.name if (folder / self.name).is_file() else None
        path = _cached_path(self.source, self.name)
        return path if path is not None and path.is_file() else None


def files_of(entry: Model) -> list[File]:
    """Returns every file the entry needs. Raises LoadError if no listing of a repository is on this machine."""
    listing = _listing(entry.id, entry, INDEX)
    index = model_index(entry)
    replaced: dict[str, Source] = {}
    if entry.denoiser is not None:
        replaced[denoiser_name(index)] = entry.denoiser
    if entry.vae is not None:
        replaced["vae"] = entry.vae
    try:
        names = _pipeline_files(index, listing, entry.variant, [*replaced, *entry.without])
    except (OSError, ValueError) as exc:  # no weights of this variant
        raise LoadError(entry.id, f"{entry.repository}: {' '.join(str(exc).split())}") from exc
    names = [name for name in names if name.partition("/")[0] not in entry.without]
    files = [File(entry, name, listing[name], name.partition("/")[0]) for name in names]
    others: list[tuple[str, Source]] = [*replaced.items(), *(("", lora) for lora in entry.lora)]
    for component, source in others:
        files += _files_of_source(entry.id, component, source)
    return files


def lora_file(lora: CatalogLora) -> File:
    """Returns the file of a LoRA that requests may name. Raises LoadError if its size is unknown or its repository
    lacks it.
    """
    return _files_of_source(lora.id, "", lora.source)[0]


def _files_of_source(owner: str, component: str, source: Source) -> list[File]:
    """Returns the one file that is named, or else those of a whole component."""
    name = getattr(source, "weight_name", None)
    listing = _listing(owner, source, name or CONFIG)
    names = [name] if name else [CONFIG, *filter(COMPONENT_WEIGHTS.fullmatch, listing)]
    for name in names:
        if name not in listing:
            raise LoadError(owner, f"{source.repository}: no file {name}")
    return [File(source, name, listing[name], component) for name in names]


def has_files(entry: Model) -> bool:
    """Whether the entry can be loaded without a download."""
    try:
        return all(file.path is not None for file in files_of(entry))
    except LoadError:
        return False


def local_file(entry: Model, source: Source, name: str) -> Path:
    """Returns a file of a repository on this machine. Raises LoadError."""
    path = File(source, name, 0).path
    if path is None:
        raise _missing_file_error(entry.id, f"{source.repository}/{name}")
    return path


def model_index(entry: Model) -> dict[str, Any]:
    """Returns the library and class of each part of the repository's pipeline. Raises LoadError."""
    path = local_file(entry, entry, INDEX)
    try:
        index: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as exc:
        raise LoadError(entry.id, f"{entry.repository}: {INDEX}: {exc}") from exc
    return index


def denoiser_name(index: Mapping[str, Any]) -> str:
    return "unet" if "unet" in index else "transformer"


def _listing(owner: str, source: Source, anchor: str) -> dict[str, int]:
    """Sizes of a repository's files by name: its folder's, the hub's as it was last asked, or else the cached ones
    in the folder of `anchor`.
    """
    folder: Path | None = Path(source.repository)
    if folder is not None and not folder.is_dir():
        try:
            tree = huggingface_hub.get_cached_repo_tree(source.repository, revision=source.revision)
            return {file.path: file.size for file in tree}
        except (errors.CachedRepoTreeNotFoundError, errors.HFValidationError, OSError):
            path = _cached_path(source, anchor)
            folder = None if path is None else path.parents[anchor.count("/")]
    if folder is None:
        raise _missing_file_error(owner, source.repository)
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in folder.rglob("*") if file.is_file()}


def _pipeline_files(
    index: Mapping[str, Any], names: Collection[str], variant: str | None, replaced: Collection[str]
) -> list[str]:
    """Returns the files that DiffusionPipeline.download fetches, by its own helpers: weights of one format and
    precision, and all of what has no weights. Of replaced parts, the config alone. Raises OSError, ValueError.
    """
    names = set(names) - set(index.get("_ignore_files", ()))
    folders = {part for part, value in index.items() if isinstance(value, list) and part != "_class_name"}
    weighty = {name.partition("/")[0] for name in diffusers_files.filter_model_files(names)} & folders
    ignored = diffusers_files._get_ignore_patterns(
        list(replaced), weighty, names, use_safetensors=True, allow_pickle=True, use_onnx=False, is_onnx=False,
        use_flashpack=False, variant=variant,
    )  # fmt: skip
    weights, _ = diffusers_files.variant_compatible_siblings(names, variant=variant, ignore_patterns=ignored)
    wanted = [name for name in weights if name.partition("/")[0] not in replaced]
    wanted += [f"{folder}/*" for folder in folders - weighty]
    wanted += [f"{folder}/{name}" for folder in weighty for name in (CONFIG, "*.py")]
    wanted += [INDEX, CONFIG, "scheduler_config.json", *TRANSFORMERS_COMPONENT_AUX_FILES]
    unwanted = [*ignored, *(f"{pattern}.index.*json" for pattern in ignored)]
    return sorted(name for name in names if _matches(name, wanted) and not _matches(name, unwanted))


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _missing_file_error(owner: str, what: str) -> LoadError:
    return LoadError(owner, f"{what} is not on this machine: run `nag-server models pull {owner}`")


def _cached_path(source: Source, name: str) -> Path | None:
    try:
        path = huggingface_hub.try_to_load_from_cache(source.repository, name, revision=source.revision)
    except errors.HFValidationError:  # not the name of a repository
        return None
    return Path(path) if isinstance(path, str) else None
