"""LitServe, after its guide "Speed up serving": batches, and a worker process for each core.

MODEL=model.pt python server.py 8000     POST /predict with a multipart field `file`
"""

import sys

import litserve
import torch
from classify import CORES, MAX_BATCH_SIZE, classify, load_model, prepare
from fastapi import Request


class Classifier(litserve.LitAPI):
    """The image classifier."""

    def setup(self, device: str) -> None:
        """Loads the model, in each worker."""
        self.model = load_model()

    def decode_request(self, request: Request) -> torch.Tensor:
        """Returns uint8 `(3, S, S)` of a form, which LitServe has parsed in spite of the annotation that it wants."""
        return prepare(self.model, request["file"].file.read())

    def batch(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """Leaves the stacking to `classify`."""
        return inputs

    def predict(self, x: list[torch.Tensor]) -> list[dict[str, object]]:
        """Returns an answer for each image."""
        return classify(self.model, x)

    def unbatch(self, output: list[dict[str, object]]) -> list[dict[str, object]]:
        """Leaves the answers as they are."""
        return output

    def encode_response(self, output: dict[str, object]) -> dict[str, object]:
        """Leaves an answer as it is."""
        return output


if __name__ == "__main__":
    api = Classifier(max_batch_size=MAX_BATCH_SIZE, batch_timeout=0.01)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=CORES)
    server.run(port=int(sys.argv[1]), host="127.0.0.1", log_level="warning", generate_client_file=False)
