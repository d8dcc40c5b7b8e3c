"""Every metric over the images of a cache that both methods have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from tqdm import tqdm

from benchmarks.paper_table.draw import missing
from benchmarks.paper_table.image_cache import ImageCache
from benchmarks.paper_table.metrics.frechet import Frechet
from benchmarks.paper_table.metrics.networks import Metric, Networks
from benchmarks.paper_table.metrics.views import centre, whole
from benchmarks.paper_table.plan import METHODS, Plan

__all__ = ["Reference", "Scores", "complete", "measure"]

TOGETHER = 32
THREADS = 4
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}

Item = TypeVar("Item")


@dataclass
class Scores:
    """Of one method: a number per image, in the prompts' order, and one a set; None for what was not asked."""

    clip: list[float] = field(default_factory=list)
    imagereward: list[float] = field(default_factory=list)
    fid: float | None = None
    pfid: float | None = None


@dataclass(frozen=True)
class Reference:
    """Real images of any sizes."""

    files: Sequence[Path]
    patch_px: int

    @classmethod
    def of(cls, folder: Path, patch_px: int) -> Reference:
        """Returns every image in a folder. Raises ValueError where that are fewer than two."""
        files = sorted(file for file in folder.glob("*") if file.suffix.lower() in SUFFIXES)
        if len(files) < 2:
            raise ValueError(f"{folder} holds {len(files)} images; FID needs two at least, and the paper's has 5,000")
        return cls(files, patch_px)

    def small(self) -> int:
        """Returns the number of images that a patch does not fit into; PFID goes without them."""
        return sum(min(_size(file)) < self.patch_px for file in self.files)


def complete(plan: Plan, cache: ImageCache) -> list[int]:
    """Returns the places whose images are there by every method. Raises StaleImageError."""
    gone = {place for batch in missing(plan, cache) for place in batch.places}
    return [place for place in range(len(plan.prompts)) if place not in gone]


def measure(
    plan: Plan,
    cache: ImageCache,
    places: Sequence[int],
    networks: Networks,
    metrics: frozenset[Metric],
    reference: Reference | None,
    device: torch.device,
) -> dict[str, Scores]:
    """Returns the scores of each method. `reference` is needed for FID and PFID."""
    distances: dict[str, Frechet] = {}
    if networks.inception is not None:
        assert reference is not None
        distances = {name: Frechet(networks.inception, device) for name in ("fid", "pfid") if name in metrics}
        _look_at_reference(reference, distances)
    found: dict[str, Scores] = {}
    with tqdm(total=len(METHODS) * len(places), unit="image", desc="measuring") as bar:
        for method in METHODS:
            scores = found[method] = Scores()
            for some in _chunks(places):
                images = _opened([cache.path(method, place) for place in some])
                prompts = [plan.prompts[place].text for place in some]
                if networks.clip is not None:
                    scores.clip += networks.clip(images, prompts)
                if networks.image_reward is not None:
                    scores.imagereward += networks.image_reward(images, prompts)
                for name, distance in distances.items():
                    assert reference is not None
                    distance.add(_views(name, images, reference.patch_px))
                bar.update(len(some))
            for name, distance in distances.items():
                setattr(scores, name, distance.take())
    return found


def _look_at_reference(reference: Reference, distances: dict[str, Frechet]) -> None:
    with tqdm(total=len(reference.files), unit="image", desc="reference") as bar:
        for some in _chunks(reference.files):
            images = _opened(some)
            for name, distance in distances.items():
                large = [image for image in images if name == "fid" or min(image.size) >= reference.patch_px]
                if large:
                    distance.add_reference(_views(name, large, reference.patch_px))
            bar.update(len(some))


def _views(name: str, images: Sequence[Image.Image], patch_px: int) -> list[Image.Image]:
    return [whole(image) if name == "fid" else centre(image, patch_px) for image in images]


def _size(file: Path) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


def _opened(files: Sequence[Path]) -> list[Image.Image]:
    def opened(file: Path) -> Image.Image:
        with Image.open(file) as image:
            return image.convert("RGB")

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(opened, files))


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), TOGETHER):
        yield items[start : start + TOGETHER]
