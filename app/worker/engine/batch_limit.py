"""The most images in a denoiser call of a model, learned from how fast calls of each size were."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from functools import partial

__all__ = ["BatchLimit"]

#: In images per second, what a denoiser call of twice the images must gain: each step lasts longer in exchange.
GAIN = 1.1
#: Full calls between two tries of a larger size, so that a larger size that is slower costs little.
TRY_AFTER = 32
#: The latest calls of each size, of which the fastest counts: whatever else the machine does only adds to the time.
LATEST = 8


class BatchLimit:
    """The most cost of a denoiser call: twice as much as long as that is faster.

    After TRY_AFTER full calls the limit is twice as much for one call. If that call was GAIN times as fast, the limit
    stays there, and the next size is tried after one more call. If full calls are not GAIN times as fast as those of
    half the images were, the limit is halved. Only calls of equal guidance are compared.

    Args:
        image_cost: of an image of the default size, in units of Generation.cost.
        images_max: the most images of the default size.
        is_fixed: whether the limit is images_max whatever the calls take.

    """

    def __init__(self, image_cost: int, images_max: int, *, is_fixed: bool) -> None:
        self._image_cost, self._images_max, self._is_fixed = image_cost, images_max, is_fixed
        self._images = images_max if is_fixed else 1
        self._cost_max = math.inf
        self._rates: defaultdict[tuple[str, int], deque[float]] = defaultdict(partial(deque, maxlen=LATEST))
        self._calls_since_try = TRY_AFTER - 1

    @property
    def cost(self) -> float:
        """The most cost of the next denoiser call."""
        tries = not self._is_fixed and self._calls_since_try >= TRY_AFTER
        return min(self._cost_max, self._image_cost * (self._larger if tries else self._images))

    def lower(self, cost: float) -> None:
        """Keeps the limit at or below a cost, since memory did not suffice for more."""
        self._cost_max = min(self._cost_max, cost)

    def note(self, guidance: str, cost: int, seconds: float) -> None:
        """Learns from a denoiser call.

        Args:
            guidance: what guided its rows; only calls of equal guidance are compared.
            cost: of all its rows.
            seconds: that it took.

        """
        if self._is_fixed:
            return
        size = min(self._images_max, 2 ** max(0, round(math.log2(cost / self._image_cost))))
        self._rates[guidance, size].append(cost / seconds)
        smaller, current, larger = (
            max(self._rates[guidance, images], default=0.0) for images in (self._smaller, self._images, self._larger)
        )
        if size == self._images:
            self._calls_since_try += 1
            is_known = len(self._rates[guidance, size]) == LATEST
            if is_known and size > 1 and current < GAIN * smaller:
                self._images, self._calls_since_try = self._smaller, 0
        elif size == self._larger:
            is_faster = larger >= GAIN * current
            self._calls_since_try = TRY_AFTER - 1 if is_faster else 0
            if is_faster and current:
                self._images = size

    @property
    def _larger(self) -> int:
        return min(2 * self._images, self._images_max)

    @property
    def _smaller(self) -> int:
        """The largest power of two below the number of images; 1 below 1."""
        return 1 << max(0, (self._images - 1).bit_length() - 1)
