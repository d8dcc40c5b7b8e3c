"""Downloads of a catalog entry's files from the Hugging Face hub."""

from __future__ import annotations

import glob
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from time import time

import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.utils import logging as hub_logging
from huggingface_hub.utils.tqdm import disable_progress_bars

from app.catalog import CatalogLora, Model, Source
from app.loading.errors import LoadError, RepositoryAccessError
from app.loading.hub import INDEX, File, files_of, lora_file

__all__ = ["download", "download_lora"]

POLL_S = 0.5
GB = 10**9

hub_logging.set_verbosity(logging.ERROR)
disable_progress_bars()


def download(entry: Model, on_progress: Callable[[int, int], object]) -> None:
    """Fetches what is not on this machine; `on_progress(done_bytes, total_bytes)` is called about every POLL_S.

    Raises LoadError, RepositoryAccessError among them, or what the connection raises.
    """
    sources = [source for source in entry.sources.values() if not Path(source.repository).is_dir()]
    _fetch_listings(entry.id, sources)
    files = [file for file in files_of(entry) if any(file.source is source for source in sources)]
    _download(entry.id, files, on_progress)


def download_lora(lora: CatalogLora, on_progress: Callable[[int, int], object]) -> None:
    """Does what `download` does for a LoRA that requests may name. For one that is on this machine the hub is not
    asked.
    """
    if lora.repository is not None and not Path(lora.repository).is_dir() and not _has_file(lora):
        _fetch_listings(lora.id, [lora.source])
        _download(lora.id, [lora_file(lora)], on_progress)


def _has_file(lora: CatalogLora) -> bool:
    try:
        return lora_file(lora).path is not None
    except LoadError:
        return False


def _fetch_listings(owner: str, sources: Sequence[Source]) -> None:
    if sources and huggingface_hub.is_offline_mode():
        command = f"nag-server models pull {owner}"
        raise LoadError(owner, f"not on this machine, and HF_HUB_OFFLINE is set: run `{command}` without it")
    for source in sources:
        _fetch(owner, source, [INDEX])  # with it comes the listing of the repository


def _download(owner: str, files: Sequence[File], on_progress: Callable[[int, int], object]) -> None:
    _check_space(owner, files)
    begun_at = time()
    thread = ThreadPoolExecutor(1, thread_name_prefix="download")
    running = thread.submit(_fetch_all, owner, files)
    thread.shutdown(wait=False)
    total_bytes = sum(file.size_bytes for file in files)
    while not wait({running}, POLL_S).done:
        on_progress(min(_done_bytes(files, begun_at), total_bytes), total_bytes)
    running.result()
    on_progress(total_bytes, total_bytes)


def _fetch_all(owner: str, files: Sequence[File]) -> None:
    for source in {id(file.source): file.source for file in files}.values():
        _fetch(owner, source, [file.name for file in files if file.source is source])


def _fetch(owner: str, source: Source, names: Sequence[str]) -> None:
    with _explain_errors(owner, source):
        huggingface_hub.snapshot_download(
            source.repository, revision=source.revision, allow_patterns=[glob.escape(name) for name in names]
        )


def _done_bytes(files: Sequence[File], begun_at: float) -> int:
    """Returns the bytes on the disk, including files under way since `begun_at`."""
    done_bytes = sum(file.size_bytes for file in files if file.path is not None)
    for repository in {file.source.repository for file in files}:
        blobs = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "blobs"
        for path in blobs.glob("*.incomplete"):
            try:
                stat = path.stat()
            except FileNotFoundError:  # complete by now
                continue
            if stat.st_mtime >= begun_at:
                # A file may have its final length from the start.
                done_bytes += min(stat.st_size, stat.st_blocks * 512)
    return done_bytes


def _check_space(owner: str, files: Sequence[File]) -> None:
    needed_bytes = sum(file.size_bytes for file in files if file.path is None)
    folder = Path(constants.HF_HUB_CACHE)
    while not folder.exists():
        folder = folder.parent
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        need, free = f"{needed_bytes / GB:.1f} GB", f"{free_bytes / GB:.1f} GB"
        raise LoadError(owner, f"{need} to download, and {folder} has {free} free: set HF_HOME to a larger disk")


@contextmanager
def _explain_errors(owner: str, source: Source) -> Iterator[None]:
    """Turns the hub's errors into LoadError."""
    name = source.repository
    try:
        yield
    except errors.HfHubHTTPError as exc:
        if isinstance(exc, errors.RevisionNotFoundError | errors.RemoteEntryNotFoundError):
            raise LoadError(owner, f"{name}: {_line(exc)}") from exc
        if isinstance(exc, errors.RepositoryNotFoundError) and not isinstance(exc, errors.GatedRepoError):
            hint = "check its name, or give the worker a token that has access in HF_TOKEN"
            raise RepositoryAccessError(owner, f"{name} is not on the hub, or private: {hint}") from exc
        if isinstance(exc, errors.GatedRepoError) or exc.response.status_code in (401, 403):
            hint = (
                f"accept its terms at {constants.ENDPOINT}/{name} and give the worker that account's token in HF_TOKEN"
            )
            raise RepositoryAccessError(owner, f"{name} asks for a login: {hint}") from exc
        raise LoadError(owner, f"{name}: {_line(exc)}") from exc
    except (OSError, ValueError) as exc:
        raise LoadError(owner, f"{name}: {_line(exc)}") from exc


def _line(exc: Exception) -> str:
    return " ".join(str(exc).split())
