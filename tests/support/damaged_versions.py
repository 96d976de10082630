"""Damages a published version in ways that the service must notice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from app.store.manifest import GOLDEN_FILE, MANIFEST_FILE, MODEL_FILE
from app.store.publishing import hash_file
from tests.support.colours import MostlyColour, colour_predictor
from training.export.export import script
from training.export.predictor import Predictor

Damage = Callable[[Path], None]


def edit_manifest(version: Path, **changes: object) -> None:
    """Changes fields of a published manifest."""
    path = version / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rehash(version: Path) -> None:
    """Makes the manifest agree with the files again, as someone would who replaced them."""
    entry = hash_file(version / MODEL_FILE).model_dump()
    edit_manifest(version, files={MODEL_FILE: entry})


def truncate(version: Path) -> None:
    """Cuts the model short."""
    content = (version / MODEL_FILE).read_bytes()
    (version / MODEL_FILE).write_bytes(content[: len(content) // 2])


def truncate_and_rehash(version: Path) -> None:
    """Cuts the model short before its hash was taken."""
    truncate(version)
    rehash(version)


def flip_a_byte(version: Path) -> None:
    """Changes one byte in the middle."""
    content = bytearray((version / MODEL_FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (version / MODEL_FILE).write_bytes(content)


def swap_weights(version: Path) -> None:
    """Puts a model in place that answers otherwise, with a hash that fits: only its golden examples can tell."""

    class Inverted(MostlyColour):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -2 * x.mean(dim=(2, 3))

    replace_model(version, colour_predictor(Inverted()))


def nudge_weights(version: Path) -> None:
    """As `swap_weights`, but so slightly that every top class stays."""

    class Nudged(MostlyColour):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3)) * 1.5

    replace_model(version, colour_predictor(Nudged()))


def replace_model(version: Path, predictor: Predictor) -> None:
    """Puts another model into `model.pt` under its manifest and golden examples, with a hash that fits."""
    extra_files = {MANIFEST_FILE: "", GOLDEN_FILE: ""}
    torch.jit.load(str(version / MODEL_FILE), _extra_files=extra_files)  # type: ignore[no-untyped-call]
    texts = {name: text.decode() if isinstance(text, bytes) else text for name, text in extra_files.items()}
    torch.jit.save(script(predictor), str(version / MODEL_FILE), _extra_files=texts)
    rehash(version)
