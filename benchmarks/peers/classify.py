"""What the peers share: the same `Predictor`, decoded and resized as a careful user would with Pillow and torch.

encoded image -> decode -> resize_and_crop, image by image -> classify, as a batch -> top_classes, JSON
"""

from __future__ import annotations

import io
import os
import warnings

import numpy as np
import torch
from PIL import Image

warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is (deprecated|not supported)")

CORES = len(os.sched_getaffinity(0))
MAX_BATCH_SIZE = 8


def load_model(threads: int = 1) -> torch.jit.ScriptModule:
    """Returns the model that the environment names, computed by `threads` threads of this process."""
    torch.set_num_threads(threads)
    return torch.jit.load(os.environ["MODEL"]).eval()


def prepare(model: torch.jit.ScriptModule, encoded: bytes) -> torch.Tensor:
    """Decodes, resizes and crops an image to uint8 `(3, S, S)`."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).unsqueeze(0)  # (1, 3, H, W)
    with torch.inference_mode():
        return model.resize_and_crop(pixels)[0]


def classify(model: torch.jit.ScriptModule, images: list[torch.Tensor]) -> list[dict[str, object]]:
    """Classifies uint8 `(3, S, S)` images as one batch; returns an answer for each."""
    with torch.inference_mode():
        probabilities = model.classify(torch.stack(images))  # (N, C)
    return [top_classes(model, row) for row in probabilities]


def top_classes(model: torch.jit.ScriptModule, probabilities: torch.Tensor) -> dict[str, object]:
    """Returns the answer for probabilities `(C,)`: the five most probable classes."""
    best = probabilities.topk(5)
    return {
        "predictions": [
            {"class_name": model.class_names[class_id], "probability": probability}
            for class_id, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
    }
