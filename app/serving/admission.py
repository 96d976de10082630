"""Bounds how many images and bytes the service admits at once.

head -> check (full? 503 before the body is read) -> hold bytes as they arrive -> body complete: admit images -> answer

A body that is still arriving holds no permit for an image, and its bytes count only once they are here. So clients that
announce much and send little keep nobody out. Permits and bytes are always given back.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from app.errors import DeadlineExceededError, ImageError, OverloadedError

_MAX_RETRY_AFTER_S: Final = 60
# Weight of the newest interval in the moving average: about the last 20 images decide.
_SMOOTHING: Final = 0.1


class Admission:
    """Counts the images that were admitted and are not answered yet, and the bytes of bodies in memory.

    Args:
        max_pending_images: the number of permits: the most images that are admitted and not answered yet.
        max_pending_bytes: the most bytes of bodies in memory, from their arrival to their answer.
        model_count: returns how many models share the permits. Half of the permits are divided among the models, and
            each model's part of that half is kept free for it, whatever the others are flooded with.
    """

    def __init__(
        self, max_pending_images: int, max_pending_bytes: int, *, model_count: Callable[[], int] = lambda: 1
    ) -> None:
        self._max_pending_images = max_pending_images
        self._max_pending_bytes = max_pending_bytes
        self._model_count = model_count
        self._pending_images = 0
        self._pending_of_model: Counter[str] = Counter()
        self._pending_bytes = 0
        self._seconds_per_image = 0.0
        self._last_release_at = time.monotonic()

    @property
    def pending_images(self) -> int:
        """Images admitted and not answered yet."""
        return self._pending_images

    @property
    def pending_bytes(self) -> int:
        """Bytes of bodies in memory."""
        return self._pending_bytes

    def check(
        self, *, model: str | None = "", images: int = 1, more_bytes: int = 0, deadline: float = math.inf
    ) -> None:
        """Raises if there is no room for more; takes nothing.

        Args:
            model: the name of the model that the images are for; None keeps no other model's permits free.
            images: the number of images to be added.
            more_bytes: the number of bytes to be added.
            deadline: when the request's time is up, on the clock of time.monotonic().

        Raises:
            OverloadedError: there is no room, or the images that were admitted before take until after the deadline.
                Its `retry_after_s` follows from the rate at which images are answered.
        """
        wanted = self._pending_images + images
        most = self._max_pending_images
        if model is not None and 2 * wanted > most:  # at most half is kept free for other models
            most -= self._reserved_for_others(model)
        if wanted > most:
            raise OverloadedError(
                f"{self._pending_images} images are being worked on already; at most {most} are admitted for this "
                "model.",
                retry_after_s=self._retry_after_s(),
            )
        wait_s = self._pending_images * self._seconds_per_image
        if time.monotonic() + wait_s > deadline and self._pending_images:
            raise OverloadedError(
                f"{self._pending_images} images are being worked on already, which takes {wait_s:.1f} seconds; the "
                "request's time would be up.",
                retry_after_s=self._retry_after_s(),
            )
        if self._pending_bytes + more_bytes > self._max_pending_bytes:
            raise OverloadedError(
                f"{self._pending_bytes:,} bytes of images are in memory already; at most {self._max_pending_bytes:,} "
                "are admitted.",
                retry_after_s=self._retry_after_s(),
            )

    @contextmanager
    def admit(self, images: int = 1, *, model: str = "", deadline: float = math.inf) -> Iterator[None]:
        """Holds permits for images inside the `with` block.

        Args:
            images: the number of images.
            model: the name of the model that the images are for.
            deadline: when the request's time is up, on the clock of time.monotonic().

        Raises:
            OverloadedError: there is no room, or no time; see `check`.
        """
        self.check(model=model, images=images, deadline=deadline)
        if self._pending_images == 0:
            self._last_release_at = time.monotonic()  # an idle time says nothing about the rate
        self._pending_images += images
        self._pending_of_model[model] += images
        try:
            yield
        except DeadlineExceededError:
            # Images that nobody waits for any more leave quickly. The pace is that of the images that are answered.
            self._measure_pace(1)
            raise
        except ImageError:
            self._measure_pace(images)
            self._last_release_at = time.monotonic()
            raise
        else:
            self._measure_pace(images)
            self._last_release_at = time.monotonic()
        finally:
            self._pending_images -= images
            self._pending_of_model[model] -= images

    @contextmanager
    def hold_bytes(self) -> Iterator[HeldBytes]:
        """Yields a count of one body's bytes, which are held until the `with` block ends."""
        held = HeldBytes(self)
        try:
            yield held
        finally:
            self._pending_bytes -= held.count

    def _reserved_for_others(self, model: str) -> int:
        """Returns how many permits are kept free for other models."""
        others = self._model_count() - 1
        if others <= 0:
            return 0
        share = self._max_pending_images // (2 * (others + 1))
        used = sum(min(share, count) for name, count in self._pending_of_model.items() if name != model)
        return max(0, others * share - used)

    def _measure_pace(self, images: int) -> None:
        since_last_s = time.monotonic() - self._last_release_at
        self._seconds_per_image += _SMOOTHING * (since_last_s / images - self._seconds_per_image)

    def _retry_after_s(self) -> int:
        """Returns how long half of the pending images take to be answered, in whole seconds."""
        return min(_MAX_RETRY_AFTER_S, max(1, math.ceil(self._pending_images / 2 * self._seconds_per_image)))


class HeldBytes:
    """The bytes of one body in memory.

    Attributes:
        count: the number of bytes.
    """

    def __init__(self, admission: Admission) -> None:
        self.count = 0
        self._admission = admission

    def add(self, count: int) -> None:
        """Counts bytes that have arrived.

        Raises:
            OverloadedError: the bytes of all bodies together are too many.
        """
        self._admission.check(images=0, more_bytes=count)
        self._admission._pending_bytes += count
        self.count += count
