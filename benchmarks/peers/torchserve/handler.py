"""TorchServe, after its performance guide: one thread in the handler, a worker for each core, batches.

`server.sh` packs this handler and the model and starts the server. POST /predictions/model with the image as the body
"""

from __future__ import annotations

import os
from typing import Any

import torch
from classify import classify, load_model, prepare
from ts.torch_handler.base_handler import BaseHandler


class Classifier(BaseHandler):  # type: ignore[misc]
    """The image classifier."""

    def initialize(self, context: Any) -> None:
        """Loads the packed model."""
        properties = context.system_properties
        os.environ["MODEL"] = os.path.join(properties["model_dir"], context.manifest["model"]["serializedFile"])
        self.model = load_model(threads=1)
        self.initialized = True

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[dict[str, object]]:
        """Returns an answer for each request of a batch."""
        images = [prepare(self.model, bytes(request.get("data") or request["body"])) for request in data]
        with torch.inference_mode():
            return classify(self.model, images)
