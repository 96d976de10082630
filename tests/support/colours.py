"""A model that tells colours apart: small enough to be exported, served and checked in a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import torch
from starlette.testclient import TestClient
from torch import nn

from app.inference.devices import resolve_devices
from app.main import create_app
from app.settings import Settings
from app.store.manifest import TrainingData
from tests.support.images import encode
from tests.support.live import SERVICE_PYTHON, outside_client
from training.export.export import Provenance, export
from training.export.predictor import Predictor

# What `--device auto` takes on this machine.
DEVICE = ",".join(map(str, resolve_devices("auto")))
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
StartApp = Callable[..., TestClient]


class MostlyColour(nn.Module):
    """`(N, 3, S, S)` -> `(N, 3)` logits: the mean of each channel, sharpened."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)) * 2


def colour_image(name: str, *, width: int = 40, height: int = 30, image_format: str = "PNG") -> bytes:
    """Returns an image of one colour, with a little texture."""
    pixels = np.tile(np.array(COLOURS[name], dtype=np.uint8), (height, width, 1))
    pixels[::3, ::2] += 20
    return encode(pixels, image_format)


def colour_predictor(network: nn.Module) -> Predictor:
    """Returns a Predictor of the colours around a network that takes `(N, 3, 16, 16)`."""
    return Predictor(network, list(COLOURS), image_size=16, resize_size=18, mean=[0.5] * 3, std=[0.25] * 3)


def export_colours(store_root: Path, name: str = "colours", network: nn.Module | None = None) -> Path:
    """Publishes the next version of the colour model."""
    return export(
        colour_predictor(network or MostlyColour()),
        store_root=store_root,
        name=name,
        golden_images=[colour_image(colour) for colour in COLOURS],
        provenance=Provenance(architecture="mostly-colour", training_data=TrainingData(name="none")),
        onnx=False,
    )


@contextmanager
def applications(colours_store: Path) -> Iterator[StartApp]:
    """Yields a function that starts an application with settings, and waits until its models have loaded or failed."""
    with ExitStack() as stack:

        def start(*, wait: bool = True, **settings: object) -> TestClient:
            settings = {"model": "colours", "model_store": colours_store, **settings}
            if SERVICE_PYTHON:
                client = cast(TestClient, stack.enter_context(outside_client(**settings)))
            else:
                app = create_app(Settings(**settings))  # type: ignore[arg-type]
                client = stack.enter_context(TestClient(app, raise_server_exceptions=False))
            deadline = time.monotonic() + 30
            while wait and client.get("/health/startup").status_code != 200:
                assert time.monotonic() < deadline, client.get("/health/startup").text
                time.sleep(0.01)  # asking without a pause would take the time that loading needs
            return client

        yield start
