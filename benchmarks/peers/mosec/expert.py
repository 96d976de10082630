"""mosec as an expert would build it for a CPU: OpenVINO, Pillow at DCT scale, one stage, so that no pixels travel.

A process for each core takes images from bytes to probabilities in one thread, in batches of what waits.

MODEL=model.pt python expert.py --port 8000     POST /inference with the image as the body
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import openvino
from mosec import Server, Worker
from PIL import Image

CORES = len(os.sched_getaffinity(0))
MAX_BATCH_SIZE = 8


class Classifier(Worker):
    """Classifies batches of encoded images."""

    def __init__(self) -> None:
        super().__init__()
        folder = Path(os.environ["MODEL"]).parent
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self.class_names = manifest["class_names"]
        self.resize_size = manifest["preprocessing"]["resize_size"]
        self.image_size = manifest["preprocessing"]["image_size"]
        hints = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(_channels_last(folder / "model.onnx"), "CPU", hints)
        self.request = compiled.create_infer_request()

    def deserialize(self, data: bytes) -> bytes:
        """Takes the body as it is."""
        return data

    def forward(self, data: list[bytes]) -> list[dict[str, object]]:
        """Returns an answer for each image."""
        images = np.stack([self._prepare(encoded) for encoded in data])  # (N, S, S, 3)
        self.request.infer([images], share_inputs=True)
        return [self._top_classes(row) for row in self.request.get_output_tensor().data]

    def _prepare(self, encoded: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(encoded))
        image.draft("RGB", (2 * self.resize_size, 2 * self.resize_size))
        image = image.convert("RGB")
        side = min(image.size) * self.image_size / self.resize_size  # of the square that the crop sees
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(image.resize((self.image_size, self.image_size), Image.Resampling.BILINEAR, box=box))

    def _top_classes(self, probabilities: np.ndarray) -> dict[str, object]:
        best = np.argsort(-probabilities)[:5]
        return {
            "predictions": [
                {"class_name": self.class_names[class_id], "probability": float(probabilities[class_id])}
                for class_id in best
            ]
        }


def _channels_last(path: Path) -> openvino.Model:
    processor = openvino.preprocess.PrePostProcessor(openvino.Core().read_model(path))
    processor.input().tensor().set_layout(openvino.Layout("NHWC"))
    processor.input().model().set_layout(openvino.Layout("NCHW"))
    return processor.build()


if __name__ == "__main__":
    server = Server()
    server.append_worker(Classifier, num=CORES, max_batch_size=MAX_BATCH_SIZE)
    server.run()
