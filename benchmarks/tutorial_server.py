"""The usual tutorial server, to compare with: FastAPI, `UploadFile`, Pillow, torch; as a first search finds it.

MODEL=model_store/imagenet/1/model.pt uvicorn benchmarks.tutorial_server:app
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
    names = [model.class_names[class_id] for class_id in best.indices.tolist()]
    return {"predictions": list(zip(names, best.values.tolist(), strict=True))}
