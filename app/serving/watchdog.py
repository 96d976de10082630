"""Notices that inference has stopped working: a batch that never ends, or an engine that fails on everything.

every half second: streams and failures of each model -> is a plain grey image still classified? -> reasons for probes
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from app.errors import PredictorError
from app.inference.engine import OutOfDeviceMemoryError
from app.inference.golden_check import grey_image
from app.models.served_model import ServedModel

logger = logging.getLogger("app.serving")

_PERIOD_S: Final = 0.5
# Fewer failures in a row may come from a client's images that the model cannot take. After so many, the watchdog tries
# a plain image that it can take.
_SUSPICIOUS_FAILURES: Final = 3
_CANARY_TIMEOUT_S: Final = 5.0


@dataclass
class Verdict:
    """What the watchdog has found.

    Attributes:
        unready_because: why requests should go elsewhere; None if they need not.
        restart_because: why only a new process helps; None if it is not needed.
    """

    unready_because: str | None = None
    restart_because: str | None = None


class Watchdog:
    """Watches the models that serve.

    Args:
        served: returns the models that serve now.
        stuck_after_s: the seconds that a batch may run, or an engine may fail on everything, before a restart is asked
            for.
    """

    def __init__(self, served: Callable[[], Iterable[ServedModel]], *, stuck_after_s: float) -> None:
        self.verdict = Verdict()
        self._served = served
        self._stuck_after_s = stuck_after_s
        self._broken_since: dict[int, float] = {}

    async def run(self) -> None:
        """Looks every half second, until it is cancelled; logs when the verdict changes."""
        while True:
            await asyncio.sleep(_PERIOD_S)
            before = self.verdict
            await self.look()
            if self.verdict.unready_because and not before.unready_because:
                logger.error("Not ready any more: %s", self.verdict.unready_because)
            elif before.unready_because and not self.verdict.unready_because:
                logger.info("Inference works again.")

    async def look(self) -> None:
        """Looks at every model once, and sets `verdict`."""
        verdict = Verdict()
        broken_since: dict[int, float] = {}
        for model in self._served():
            name = f"{model.artifact.name}/{model.artifact.version}"
            running_s = model.pipeline.longest_batch_s
            if running_s > self._stuck_after_s:
                reason = f"Model {name}: a batch has been running for {running_s:.0f} s."
                verdict = Verdict(reason, reason)
            elif failure := await self._failure(model):
                since = self._broken_since.get(id(model), time.monotonic())
                broken_since[id(model)] = since
                verdict.unready_because = f"Model {name} fails on every image: {failure}"
                if time.monotonic() - since >= self._stuck_after_s:  # a new process may get a lost GPU back
                    verdict.restart_because = verdict.unready_because
        self._broken_since = broken_since
        self.verdict = verdict

    async def _failure(self, model: ServedModel) -> str | None:
        """Returns why the model fails on a plain grey image; None if it does not, or if too few images have failed."""
        if model.pipeline.failures_in_a_row < _SUSPICIOUS_FAILURES:
            return None
        deadline = time.monotonic() + _CANARY_TIMEOUT_S
        try:
            async with asyncio.timeout(_CANARY_TIMEOUT_S):
                await model.pipeline.classify(grey_image(model.artifact), deadline=deadline)
        except (PredictorError, TimeoutError, OutOfDeviceMemoryError) as error:  # no time or no room is no verdict
            logger.warning("Model %s could not be tried: %s", model.artifact.name, error or "no answer yet.")
            return None
        except Exception as error:
            return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        return None
