"""The most images in a denoiser call of a model, learned from how fast calls of each size were."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from functools import partial
from statistics import median

__all__ = ["GAIN", "BatchLimit"]

#: In images per second, what a denoiser call of twice the images must gain: each step lasts longer in exchange.
GAIN = 1.1
#: Full calls between two tries of another size, so that a size that is slower costs little.
TRY_AFTER = 16
#: Calls of each of the two sizes that a try compares. The median of three leaves out one that was disturbed.
CALLS = 3


class BatchLimit:
    """The most cost of a denoiser call: twice as much as long as that is faster.

    A try compares calls of twice as many images, or another time of half as many, with full calls. They take turns,
    since a machine is faster at one time than at another. Of two sizes, the larger is kept if it is GAIN times as
    fast. After a change, the next size is tried at once.

    Args:
        image_cost: of an image of the default size, in units of Generation.cost.
        images_max: the most images of the default size.
        is_fixed: whether the limit is images_max whatever the calls take.

    """

    def __init__(self, image_cost: int, images_max: int, *, is_fixed: bool) -> None:
        self._image_cost, self._images_max, self._is_fixed = image_cost, images_max, is_fixed
        self._images = images_max if is_fixed else 1
        self._memory_cost_max = math.inf
        self._rates: defaultdict[tuple[str, int], deque[float]] = defaultdict(partial(deque, maxlen=CALLS))
        # The first call is of one image: what more would take of memory is not known yet.
        self._calls_until_try, self._larger_is_next, self._is_others_turn = 1, True, True

    @property
    def cost(self) -> float:
        """The most cost of the next denoiser call."""
        images = self._other if self._tries and self._is_others_turn else self._images
        return min(self._memory_cost_max, self._image_cost * images)

    @property
    def cost_max(self) -> float:
        """The most that `cost` can rise to."""
        return min(self._memory_cost_max, self._image_cost * self._images_max)

    def start(self, images: int) -> None:
        """Begins again with so many images, which a warm-up has found to be best."""
        if not self._is_fixed:
            self._change(images, tries_after=TRY_AFTER)

    def lower(self, cost: float) -> None:
        """Keeps the limit at or below a cost, since memory did not suffice for more."""
        self._memory_cost_max = min(self._memory_cost_max, cost)

    def note(self, guidance: str, cost: int, seconds: float) -> None:
        """Learns from a denoiser call.

        Args:
            guidance: what guided its rows; only calls of equal guidance are compared.
            cost: of all its rows.
            seconds: that it took.

        """
        size = min(self._images_max, 1 << max(0, round(math.log2(cost / self._image_cost))))
        if not self._tries:
            self._calls_until_try -= size == self._images
        elif size in (self._images, self._other):
            self._is_others_turn = size == self._images
            self._rates[guidance, size].append(cost / seconds)
            rates, other_rates = self._rates[guidance, self._images], self._rates[guidance, self._other]
            if len(rates) == len(other_rates) == CALLS:
                self._compare(median(rates), median(other_rates))

    def _compare(self, rate: float, other_rate: float) -> None:
        """Changes to the size that was tried if it is better; otherwise the next try is in the other direction."""
        is_larger = self._other > self._images
        if (other_rate >= GAIN * rate) if is_larger else (rate < GAIN * other_rate):
            self._larger_is_next = is_larger
            self._change(self._other, tries_after=0)
            if (self._other > self._images) != is_larger:  # there is no further size
                self._calls_until_try = TRY_AFTER
        else:
            self._larger_is_next = not is_larger
            self._change(self._images, tries_after=TRY_AFTER)

    def _change(self, images: int, tries_after: int) -> None:
        self._images, self._calls_until_try, self._is_others_turn = images, tries_after, True
        self._rates.clear()

    @property
    def _tries(self) -> bool:
        return not self._is_fixed and self._calls_until_try <= 0 and self._images_max > 1

    @property
    def _other(self) -> int:
        """The number of images to try: twice or half as many, by turns, unless one of them is out of bounds."""
        larger, smaller = min(2 * self._images, self._images_max), 1 << max(0, (self._images - 1).bit_length() - 1)
        if self._larger_is_next:
            return larger if larger > self._images else smaller
        return smaller if smaller < self._images else larger
