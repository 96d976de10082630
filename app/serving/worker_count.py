"""How many worker processes pay: as many as are needed to feed the models, when Python is slower than they are.

loaded models -> images a second of each engine, all streams busy -> one worker, or several
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from app.inference.golden_check import grey_image
from app.inference.measuring import rate_of
from app.models.served_model import ServedModel

logger = logging.getLogger("app.serving")

# What one process can receive, decode and answer is about 1,000 small images a second (docs/workers.md): below that
# the model is the limit, and a second copy of it would only cost memory.
_ONE_PROCESS_IMAGES_PER_S: Final = 1000
# Above it, each worker is given this much, so that Python is not the limit again.
_IMAGES_PER_S_PER_WORKER: Final = 500
_MEASURED_S: Final = 0.1
_MEASURED_BATCH_SIZE: Final = 2


def worthwhile_workers(models: Sequence[ServedModel], *, max_workers: int) -> int:
    """Returns how many processes pay for these models: what the slowest of them needs. Blocks.

    Args:
        models: loaded, idle.
        max_workers: one for each usable core.
    """
    if max_workers == 1 or not models or any(model.engine.device != "cpu" for model in models):
        return 1
    slowest = min(_images_per_s(model) for model in models)
    if slowest < _ONE_PROCESS_IMAGES_PER_S:
        return 1
    workers = min(max_workers, int(slowest / _IMAGES_PER_S_PER_WORKER))
    logger.info("The models can do %.0f images/s, more than one process can feed: %d workers.", slowest, workers)
    return workers


def _images_per_s(model: ServedModel) -> float:
    if model.layout.measured:
        return max(each.images_per_s for each in model.layout.measured)
    batch = [grey_image(model.artifact)] * _MEASURED_BATCH_SIZE
    return rate_of(model.engine, batch, model.layout.layout.streams, _MEASURED_S)
