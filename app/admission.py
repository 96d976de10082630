"""How many images may be inside the service at once: the permit is taken before any work, and always given back."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from app.errors import OverloadedError

_MAX_RETRY_AFTER_S: Final = 60
# Weight of the newest interval in the moving average: about the last 20 images decide.
_SMOOTHING: Final = 0.1


class Admission:
    """Counts the images that were admitted and are not answered yet.

    Args:
        max_pending_images: the most there may be.
        model_count: tells how many models share them. Half of the permits are kept free for those that have few: each
            has its part of that half to itself, whatever the others are flooded with.
    """

    def __init__(self, max_pending_images: int, *, model_count: Callable[[], int] = lambda: 1) -> None:
        self._max_pending_images = max_pending_images
        self._model_count = model_count
        self._pending = 0
        self._pending_of_model: Counter[str] = Counter()
        self._seconds_per_image = 0.0
        self._last_release_at = time.monotonic()

    @property
    def pending_images(self) -> int:
        """Images admitted and not answered yet."""
        return self._pending

    @contextmanager
    def admit(self, images: int = 1, *, model: str = "") -> Iterator[None]:
        """Holds permits while the caller works.

        Args:
            images: how many.
            model: that works on them.

        Raises:
            OverloadedError: there are not enough; `retry_after_s` is computed from the rate at which images leave.
        """
        most = self._max_pending_images - self._reserved_for_others(model)
        if self._pending + images > most:
            raise OverloadedError(
                f"{self._pending} images are being worked on already; at most {most} are admitted for this model.",
                retry_after_s=self._retry_after_s(),
            )
        if self._pending == 0:
            self._last_release_at = time.monotonic()  # an idle spell says nothing of the rate
        self._pending += images
        self._pending_of_model[model] += images
        try:
            yield
        finally:
            self._pending -= images
            self._pending_of_model[model] -= images
            self._count_release(images)

    def _reserved_for_others(self, model: str) -> int:
        """Returns how many permits are kept free for other models."""
        others = self._model_count() - 1
        if others <= 0:
            return 0
        share = self._max_pending_images // (2 * (others + 1))
        used = sum(min(share, count) for name, count in self._pending_of_model.items() if name != model)
        return max(0, others * share - used)

    def _count_release(self, images: int) -> None:
        if images == 0:
            return
        now = time.monotonic()
        self._seconds_per_image += _SMOOTHING * ((now - self._last_release_at) / images - self._seconds_per_image)
        self._last_release_at = now

    def _retry_after_s(self) -> int:
        """Returns the time that half of what is pending takes to leave, in whole seconds."""
        return min(_MAX_RETRY_AFTER_S, max(1, math.ceil(self._pending / 2 * self._seconds_per_image)))
