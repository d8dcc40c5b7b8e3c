"""The mixes of requests and the times at which they arrive, both drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks import batching
from training.shapes.world import BACKGROUNDS, COLORS, MOTIONS, SHAPES, SIZES, Caption

__all__ = ["FOUR_STEPS", "MIXES", "Mix", "arrivals", "image"]

IMAGE_MODELS, VIDEO_MODEL = ("shapes-flux", "shapes-sd"), "shapes-wan"
#: Step counts that clients ask for. Few distinct ones favour a service that batches equal counts only.
STEPS = (2, 4, 8, 12, 20, 28, 40, 50)
VIDEO_SHARE = 0.1
FOUR_STEPS = tuple({"model": "shapes-flux", **body} for body in batching.requests())

Body = dict[str, Any]


@dataclass(frozen=True)
class Mix:
    """A kind of load. `duration_share` is the part of a cell's time that gives it enough requests for a p95."""

    title: str
    draw: Callable[[random.Random], Body]
    duration_share: float = 1.0

    def requests(self, seed: int) -> Iterator[Body]:
        """Yields request bodies without end, the same ones for the same seed."""
        rng = random.Random(seed)  # noqa: S311 - a load, not a secret
        while True:
            yield self.draw(rng)


def arrivals(rate_per_s: float, seconds: float, seed: int) -> list[float]:
    """Returns the times of a Poisson process in seconds from its begin."""
    rng = random.Random(seed)  # noqa: S311
    times, time_s = [], rng.expovariate(rate_per_s)
    while time_s < seconds:
        times.append(time_s)
        time_s += rng.expovariate(rate_per_s)
    return times


def four_steps(rng: random.Random) -> Body:
    """Returns an image in 4 steps with its own prompt, negative prompt and NAG scale."""
    return {**rng.choice(FOUR_STEPS), "seed": rng.randrange(2**32)}


def image(rng: random.Random) -> Body:
    """Returns an image of either model, with CFG, NAG, both or neither."""
    return _request(rng, rng.choice(IMAGE_MODELS), _caption(rng))


def video(rng: random.Random) -> Body:
    """Returns a video with the step counts and guidance of images."""
    return _request(rng, VIDEO_MODEL, _caption(rng, moving=True))


def image_or_video(rng: random.Random) -> Body:
    return video(rng) if rng.random() < VIDEO_SHARE else image(rng)


def _request(rng: random.Random, model: str, prompt: str) -> Body:
    body: Body = {
        "model": model, "prompt": prompt, "seed": rng.randrange(2**32), "num_inference_steps": rng.choice(STEPS),
    }  # fmt: skip
    if rng.random() < 0.5:
        body |= {"guidance_scale": rng.choice((1.5, 2.0, 3.0, 5.0)), "negative_prompt": _caption(rng)}
    if rng.random() < 0.5:
        body["nag"] = {
            "scale": round(rng.uniform(2.0, 9.0), 2),
            "tau": round(rng.uniform(1.5, 3.5), 2),
            "alpha": round(rng.uniform(0.1, 0.6), 2),
            "end": rng.choice((0.5, 1.0)),
            "negative_prompt": _caption(rng),
        }
    return body


def _caption(rng: random.Random, *, moving: bool = False) -> str:
    parts = (rng.choice(names) for names in (SIZES, COLORS, SHAPES, BACKGROUNDS))
    return str(Caption(*parts, motion=rng.choice(MOTIONS) if moving else None))


MIXES = {
    "a": Mix("(a) 4 steps", four_steps, duration_share=1 / 3),
    "b": Mix("(b) 2 to 50 steps", image),
    "c": Mix("(c) as (b), 10 % videos", image_or_video),
}
