"""The usual tutorial server: FastAPI, `UploadFile`, Pillow, torch; as a first search finds it. Does without `classify`.

MODEL=model.pt uvicorn server:app
"""

from __future__ import annotations

import io
import os
import warnings

import numpy as np
import torch
from fastapi import FastAPI, UploadFile
from PIL import Image

warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is (deprecated|not supported)")

app = FastAPI()
model = torch.jit.load(os.environ["MODEL"]).eval()


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, object]:
    """Classifies an uploaded image."""
    image = Image.open(io.BytesIO(file.file.read())).convert("RGB")
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).unsqueeze(0)  # (1, 3, H, W)
    with torch.inference_mode():
        probabilities = model(pixels)[0]
    best = probabilities.topk(5)
    return {
        "predictions": [
            {"class_name": model.class_names[class_id], "probability": probability}
            for class_id, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
    }
