"""Ray Serve, after its guides on batching and performance: a replica for each core, batches within a replica.

MODEL=model.pt python server.py 8000     POST / with the image as the body
"""

from __future__ import annotations

import signal
import sys

import ray
import torch
from classify import CORES, MAX_BATCH_SIZE, classify, load_model, prepare
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=CORES, ray_actor_options={"num_cpus": 1}, max_ongoing_requests=4 * MAX_BATCH_SIZE)
class Classifier:
    """The image classifier."""

    def __init__(self) -> None:
        self.model = load_model()

    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=0.01)
    async def classify(self, images: list[torch.Tensor]) -> list[dict[str, object]]:
        """Returns an answer for each image."""
        return classify(self.model, images)

    async def __call__(self, request: Request) -> dict[str, object]:
        """Answers a request."""
        return await self.classify(prepare(self.model, await request.body()))


if __name__ == "__main__":
    # The default would be one more CPU for the proxy than a small machine has.
    ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Classifier.bind())
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
