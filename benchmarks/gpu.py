"""Measures ResNet-50 on a GPU: the service against a bare loop over tensors that are ready, and which step limits it.

python -m benchmarks.gpu

Needs a CUDA GPU and torchvision; the weights are random, which costs the same. Exits with 1 if the engine reaches less
than 80 % of the bare loop. docs/performance.md and benchmarks/NOTES.md have the figures.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
import torchvision

from app.commands.bench.measure import bench, synthetic_photo
from app.commands.bench.rate import rate_of
from app.inference.artifact import Artifact
from app.inference.cuda_engine import CudaEngine
from app.inference.devices import resolve_devices
from app.inference.engine import Precision
from app.inference.golden_check import grey_image, warm_up
from app.inference.loading import load_artifact
from app.inference.torchscript_engine import AUTOCAST_DTYPES, frozen_classify, planes
from app.settings import ModelSettings
from app.store.manifest import TrainingData
from app.store.model_store import ModelStore
from training.export.export import Provenance, export
from training.export.predictor import Predictor

_MIN_SHARE = 0.8
_WARM_UP_BATCHES = 10


def main() -> None:
    """Prints the bare loop, the engine's share of it, and the table of `image-predictor bench`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=["float32", "bfloat16", "float16"], default="bfloat16")
    parser.add_argument("--max-batch-size", type=int, default=64)
    parser.add_argument("--streams", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("This benchmark needs a CUDA GPU.")
    with tempfile.TemporaryDirectory() as folder:
        store_root = Path(folder)
        _publish(store_root)
        torch.set_num_threads(1)  # as the service does: the streams are the threads
        artifact = load_artifact("resnet50", ModelStore(store_root))
        device = resolve_devices("cuda:0")[0]
        engine = CudaEngine(
            artifact,
            [device],
            precision=arguments.precision,
            streams=arguments.streams,
            max_batch_size=arguments.max_batch_size,
        )
        warm_up(artifact, engine, arguments.max_batch_size)
        batch = [grey_image(artifact)] * arguments.max_batch_size
        served = rate_of(engine, batch, arguments.streams, arguments.seconds)
        bare = bare_rate(artifact, device, arguments.precision, arguments.max_batch_size, arguments.seconds)
        print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, {arguments.precision}")
        print(f"bare loop {bare:.0f} images/s, engine {served:.0f} ({served / bare:.0%}, at least {_MIN_SHARE:.0%})")
        settings = ModelSettings(
            model="resnet50",
            model_store=store_root,
            device="cuda:0",
            precision=arguments.precision,
            streams=arguments.streams,
            max_batch_size=arguments.max_batch_size,
        )
        photo = store_root / "photo.jpg"
        photo.write_bytes(synthetic_photo())
        bench(settings, [photo], seconds=arguments.seconds)
    sys.exit(0 if served >= _MIN_SHARE * bare else 1)


def bare_rate(artifact: Artifact, device: str, precision: Precision, batch_size: int, seconds: float) -> float:
    """Returns the images a second of `classify` over a batch that lies on the GPU."""
    classify, dtype = frozen_classify(artifact, torch.device(device)), AUTOCAST_DTYPES.get(precision)
    batch = torch.stack([planes(grey_image(artifact))] * batch_size).to(device)
    with torch.inference_mode(), torch.autocast("cuda", dtype, enabled=dtype is not None):
        for _ in range(_WARM_UP_BATCHES):
            classify(batch)
        torch.cuda.synchronize()
        started_at, batches = time.perf_counter(), 0
        while time.perf_counter() < started_at + seconds:
            for _ in range(_WARM_UP_BATCHES):  # so that the GPU never waits for this loop's clock
                classify(batch)
            torch.cuda.synchronize()
            batches += _WARM_UP_BATCHES
        return batches * batch_size / (time.perf_counter() - started_at)


def _publish(store_root: Path) -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet50().eval()
    names = [f"class {number}" for number in range(1000)]
    predictor = Predictor(
        network, names, image_size=224, resize_size=256, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]
    )
    export(
        predictor,
        store_root=store_root,
        name="resnet50",
        golden_images=[synthetic_photo()],
        provenance=Provenance(architecture="resnet50", training_data=TrainingData(name="none")),
        onnx=False,
    )


if __name__ == "__main__":
    main()
