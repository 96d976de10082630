"""BentoML, after its guides on adaptive batching and workers: a batchable API, and a worker process for each core.

MODEL=model.pt bentoml serve server:Classifier --port 8000     POST /predict with a multipart field `images`
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bentoml
from classify import MAX_BATCH_SIZE, classify, load_model, prepare


@bentoml.service(workers="cpu_count")
class Classifier:
    """The image classifier."""

    def __init__(self) -> None:
        self.model = load_model()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH_SIZE, max_latency_ms=10_000)
    def predict(self, images: list[Path]) -> list[dict[str, Any]]:
        """Returns an answer for each image."""
        return classify(self.model, [prepare(self.model, image.read_bytes()) for image in images])
