"""mosec, after its ResNet-50 example: a stage that prepares and a stage that infers in batches, processes for each.

MODEL=model.pt python server.py --port 8000     POST /inference with the image as the body
"""

from __future__ import annotations

from typing import Any

import torch
from classify import CORES, MAX_BATCH_SIZE, classify, load_model, prepare
from mosec import Server, Worker


class Preprocess(Worker):
    """Decodes and resizes."""

    def __init__(self) -> None:
        super().__init__()
        self.model = load_model()

    def deserialize(self, data: bytes) -> bytes:
        """Takes the body as it is."""
        return data

    def forward(self, data: bytes) -> Any:
        """Returns uint8 `(3, S, S)`."""
        return prepare(self.model, data).numpy()


class Inference(Worker):
    """Classifies batches."""

    def __init__(self) -> None:
        super().__init__()
        self.model = load_model()

    def forward(self, data: list[Any]) -> list[dict[str, object]]:
        """Returns an answer for each image."""
        return classify(self.model, [torch.from_numpy(image) for image in data])


if __name__ == "__main__":
    server = Server()
    server.append_worker(Preprocess, num=CORES)
    server.append_worker(Inference, num=CORES, max_batch_size=MAX_BATCH_SIZE)
    server.run()
