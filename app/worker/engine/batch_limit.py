"""The most images in a denoiser call of a model, learned from how fast calls of each size were."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from functools import partial

__all__ = ["BatchLimit"]

#: In images per second, what a denoiser call of twice the images must gain: each step lasts longer in exchange.
GAIN = 1.1
#: Full calls between two tries of another size, so that a size that is slower costs little.
TRY_AFTER = 32
#: Calls of a size that is tried. The first one may have to set up or compile what all others use.
TRIES = 2
#: The latest full calls, of which the fastest counts: whatever else the machine does only adds to the time.
LATEST = 4


class BatchLimit:
    """The most cost of a denoiser call: twice as much as long as that is faster.

    After TRY_AFTER full calls, TRIES calls have twice as many images, or another time half as many, and are compared
    with the full calls just before. Those of long ago say little: a machine is faster at one time than at another. Of
    two sizes, the larger is kept if it is GAIN times as fast. After a change, the next size is tried at once.

    Args:
        image_cost: of an image of the default size, in units of Generation.cost.
        images_max: the most images of the default size.
        is_fixed: whether the limit is images_max whatever the calls take.

    """

    def __init__(self, image_cost: int, images_max: int, *, is_fixed: bool) -> None:
        self._image_cost, self._images_max, self._is_fixed = image_cost, images_max, is_fixed
        self._images = images_max if is_fixed else 1
        self._cost_max = math.inf
        self._rates, self._tried_rates = _by_guidance(), _by_guidance()  # of full calls, and of the size that is tried
        self._calls_since_try = TRY_AFTER - 1
        self._tries_more = True

    @property
    def cost(self) -> float:
        """The most cost of the next denoiser call."""
        tries = not self._is_fixed and self._calls_since_try >= TRY_AFTER
        return min(self._cost_max, self._image_cost * (self._other if tries else self._images))

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
        size = min(self._images_max, 1 << max(0, round(math.log2(cost / self._image_cost))))
        if size == self._images:
            self._rates[guidance].append(cost / seconds)
            self._calls_since_try += 1
        elif size == self._other and self._calls_since_try >= TRY_AFTER:
            rates, tried_rates = self._rates[guidance], self._tried_rates[guidance]
            tried_rates.append(cost / seconds)
            if not rates:  # the limit has changed since the last calls of this guidance
                self._calls_since_try = TRY_AFTER - 1
                tried_rates.clear()
            elif len(tried_rates) == TRIES:
                self._compare(size, max(rates), max(tried_rates))
                self._tried_rates = _by_guidance()

    def _compare(self, size: int, rate: float, tried_rate: float) -> None:
        """Changes to the size that was tried if it is better; otherwise the next try is in the other direction."""
        is_larger = size > self._images
        if (tried_rate >= GAIN * rate) if is_larger else (rate < GAIN * tried_rate):
            self._images, self._tries_more, self._rates = size, is_larger, self._tried_rates
            can_go_on = (self._other > size) == is_larger
            self._calls_since_try = TRY_AFTER if can_go_on else 0
        else:
            self._calls_since_try, self._tries_more = 0, not is_larger

    @property
    def _other(self) -> int:
        """The number of images to try: twice or half as many, whichever is the turn and within the bounds."""
        larger, smaller = min(2 * self._images, self._images_max), 1 << max(0, (self._images - 1).bit_length() - 1)
        if self._tries_more:
            return larger if larger > self._images else smaller
        return smaller if smaller < self._images else larger


def _by_guidance() -> defaultdict[str, deque[float]]:
    """Returns empty rates of the latest calls, in cost per second."""
    return defaultdict(partial(deque, maxlen=LATEST))
