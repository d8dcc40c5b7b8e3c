"""The mixes of requests and the times at which they arrive, both drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from benchmarks import batching
from training.shapes.world import BACKGROUNDS, COLORS, MOTIONS, SHAPES, SIZES, Caption

__all__ = ["FOUR_STEPS", "MIXES", "Mix", "arrivals", "images"]

IMAGE_MODELS, VIDEO_MODELS = ("shapes-flux", "shapes-sd"), ("shapes-wan",)
#: Step counts that clients ask for. Few distinct ones favour a service that batches equal counts only.
STEPS = (2, 4, 8, 12, 20, 28, 40, 50)
IMAGES_PER_VIDEO = 9
FOUR_STEPS = tuple({"model": "shapes-flux", **body} for body in batching.requests())

Body = dict[str, Any]


@dataclass(frozen=True)
class Mix:
    """A kind of load: `draw` yields request bodies without end.

    `duration_share` is the part of a cell's time that gives it enough requests for a p95.
    """

    title: str
    draw: Callable[[random.Random], Iterator[Body]]
    duration_share: float = 1.0

    def requests(self, seed: int) -> Iterator[Body]:
        """Returns the same requests for the same seed."""
        return self.draw(random.Random(seed))  # noqa: S311 - a load, not a secret


def arrivals(rate_per_s: float, seconds: float, seed: int) -> list[float]:
    """Returns the times of a Poisson process with exactly this mean rate, in seconds from its begin; at least one."""
    rng = random.Random(seed)  # noqa: S311
    return sorted(rng.uniform(0.0, seconds) for _ in range(max(1, round(rate_per_s * seconds))))


def four_steps(rng: random.Random) -> Iterator[Body]:
    """Yields images in 4 steps, each with its own prompt, negative prompt and NAG scale."""
    while True:
        for body in rng.sample(FOUR_STEPS, len(FOUR_STEPS)):
            yield {**body, "seed": rng.randrange(2**32)}


def images(rng: random.Random) -> Iterator[Body]:
    """Yields images of both models with CFG, NAG, both or neither."""
    return _requests(rng, IMAGE_MODELS)


def images_and_videos(rng: random.Random) -> Iterator[Body]:
    """Yields these images, and videos with the same step counts and guidance."""
    drawn_images, drawn_videos = images(rng), _requests(rng, VIDEO_MODELS)
    while True:
        group = [*islice(drawn_images, IMAGES_PER_VIDEO), next(drawn_videos)]
        rng.shuffle(group)
        yield from group


def _requests(rng: random.Random, models: tuple[str, ...]) -> Iterator[Body]:
    """Shuffles whatever costs much, instead of drawing it, so that short parts of the load cost the same."""
    kinds = list(product(models, STEPS, (False, True)))
    while True:
        rng.shuffle(kinds)
        for model, steps, cfg in kinds:
            yield _request(rng, model, steps, cfg)


def _request(rng: random.Random, model: str, steps: int, cfg: bool) -> Body:
    moving = model in VIDEO_MODELS
    body: Body = {
        "model": model, "prompt": _caption(rng, moving), "seed": rng.randrange(2**32), "num_inference_steps": steps,
    }  # fmt: skip
    if cfg:
        body |= {"guidance_scale": rng.choice((1.5, 2.0, 3.0, 5.0)), "negative_prompt": _caption(rng, moving)}
    if rng.random() < 0.5:
        body["nag"] = {
            "scale": round(rng.uniform(2.0, 9.0), 2),
            "tau": round(rng.uniform(1.5, 3.5), 2),
            "alpha": round(rng.uniform(0.1, 0.6), 2),
            "end": rng.choice((0.5, 1.0)),
            "negative_prompt": _caption(rng, moving),
        }
    return body


def _caption(rng: random.Random, moving: bool) -> str:
    size, color, shape, background = map(rng.choice, (SIZES, COLORS, SHAPES, BACKGROUNDS))
    return str(Caption(size, color, shape, background, rng.choice(MOTIONS) if moving else None))


MIXES = {
    "a": Mix("(a) 4 steps", four_steps, duration_share=1 / 3),
    "b": Mix("(b) 2 to 50 steps", images),
    "c": Mix("(c) as (b), 10 % videos", images_and_videos),
}
