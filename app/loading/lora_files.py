"""The files of LoRAs that requests use, on a worker's machine."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile

from redis.exceptions import RedisError

from app.artifacts import Artifacts, ArtifactsError, lora_name
from app.catalog import Catalog, Model, UploadedLora, is_uploaded
from app.folders import writable_folder
from app.loading.download import download_lora
from app.loading.errors import LoadError, LoraError, public_reason
from app.loading.hub import lora_file
from app.logs import Log
from app.loras import LoraFileError, check_lora, find_structure
from app.queue.queue import Queue
from app.settings import Settings

__all__ = ["LoraFiles"]

_log = Log("worker")
#: The store is asked again for so long.
PATIENCE_S = 30.0
#: A local copy that was used within this time is never removed to make room: its reader may not have opened it yet.
KEPT_S = 3600.0


def _show_nothing(done_bytes: int, total_bytes: int) -> None:
    del done_bytes, total_bytes


class LoraFiles:
    """Finds the file of a LoRA: in the catalog's folders, the hub's cache, or the artifact store, from which uploaded
    ones are copied into a folder of this machine.

    Every method blocks and belongs in a thread without a running event loop. Each file is checked again, as it may have
    been changed since it was registered, and as the worker may know more of the model than the API did.
    """

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self._settings = settings
        self._catalog = catalog
        self._artifacts = Artifacts.open(settings, PATIENCE_S)
        self._checked: set[tuple[Path, int, str]] = set()

    def path(self, use_id: str, model: Model, on_progress: Callable[[int, int], object] = _show_nothing) -> Path:
        """Returns the file of the LoRA that a job of this model uses, fetched if it is not on this machine.

        Raises LoraError, whose message clients may read.
        """
        try:
            path = (
                self._upload_path(use_id, model)
                if is_uploaded(use_id)
                else self._catalog_path(use_id, model, on_progress)
            )
            key = path, path.stat().st_mtime_ns if not is_uploaded(use_id) else 0, model.id
            if key not in self._checked:
                with path.open("rb") as file:
                    check_lora(file, find_structure(model))
                self._checked.add(key)
        except LoraFileError as exc:
            raise LoraError(model.id, f"loras: {use_id}: {exc}") from exc
        except (ArtifactsError, RedisError, OSError) as exc:
            raise LoraError(model.id, f"loras: {use_id}: its file cannot be fetched ({type(exc).__name__})") from exc
        return path

    def _catalog_path(self, use_id: str, model: Model, on_progress: Callable[[int, int], object]) -> Path:
        lora = self._catalog.loras.get(use_id)
        if lora is None:
            raise LoraError(model.id, f"loras: {use_id}: not in this worker's catalog")
        try:
            download_lora(lora, on_progress)
            path = lora_file(lora).path
        except LoadError as exc:
            _log.error("lora_missing", lora=use_id, message=exc.why)  # clients are told less
            raise LoraError(model.id, f"loras: {use_id}: its file cannot be had: {public_reason(exc)}") from exc
        if path is None:
            raise LoraError(model.id, f"loras: {use_id}: its file is not on the worker's machine")
        return path

    def _upload_path(self, use_id: str, model: Model) -> Path:
        lora = asyncio.run(self._find(use_id))
        if lora is None:
            raise LoraError(model.id, f"loras: {use_id}: it was deleted")
        folder = writable_folder(self._settings.data_folder / "loras", "NAG_DATA_DIR")
        path = folder / f"{lora.sha256}.safetensors"
        if path.is_file():
            os.utime(path)
            return path
        self._make_room(folder, lora.size_bytes)
        with NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as part:
            try:
                digest = asyncio.run(self._fetch(lora, Path(part.name)))
                if digest != lora.sha256:
                    raise LoraError(model.id, f"loras: {use_id}: its file is not the one that was uploaded")
                Path(part.name).replace(path)
            finally:
                Path(part.name).unlink(missing_ok=True)
        return path

    async def _find(self, use_id: str) -> UploadedLora | None:
        queue = Queue.connect(self._settings)
        try:
            return await queue.loras.find(use_id)
        finally:
            await queue.close()

    async def _fetch(self, lora: UploadedLora, path: Path) -> str:
        """Writes the file, and returns the digest of what was written."""
        digest = hashlib.sha256()
        with path.open("wb") as file:
            async for chunk in self._artifacts.stream(lora_name(lora.version), 0, lora.size_bytes):
                digest.update(chunk)
                file.write(chunk)
        return digest.hexdigest()

    def _make_room(self, folder: Path, size_bytes: int) -> None:
        """Removes the copies that were not used for longest, those of the last hour excepted."""
        copies = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob("*.safetensors"))
        total = size_bytes + sum(size for _, size, _ in copies)
        for used_at, size, path in copies:
            if total <= self._settings.lora_cache_bytes or used_at > time.time() - KEPT_S:
                break
            with contextlib.suppress(FileNotFoundError):  # another worker of this machine did
                path.unlink()
            total -= size
