"""Scripts a `Predictor`, verifies the scripted one against the original, and publishes it in the model store.

Predictor -> golden examples -> torch.jit.script -> compare -> ONNX twin -> compare -> save -> load again -> compare
          -> publish
"""

from __future__ import annotations

import copy
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import torch

from app.images.decode import decode
from app.store.manifest import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    ONNX_FILE,
    Architecture,
    Fidelity,
    GoldenExample,
    GoldenExamples,
    Manifest,
    Preprocessing,
    TrainingData,
)
from app.store.publishing import publish
from training.data.pixel_store import as_planes
from training.errors import ExportError
from training.export.onnx_twin import missing_onnx_packages, verify_onnx, write_onnx
from training.export.predictor import Predictor
from training.runs.versions import installed_versions

# The scripted and the eager model run the same kernels. Only the order of float32 sums in fused operations differs.
MAX_SCRIPTED_DEVIATION = 1e-5
_LIBRARIES = ("torch", "torchvision", "timm", "pillow", "numpy", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from, for its manifest.

    Attributes:
        architecture: the usual name of the architecture, such as `resnet50`.
        training_data: the data that the model learned from.
        licence: the licence of the weights; None if it is not known.
        source: the address that the weights come from; None for weights that were trained here.
        metrics: figures by name, such as `test_accuracy`.
        seeds: the seeds of the training, by their use.
    """

    architecture: str
    training_data: TrainingData
    licence: str | None = None
    source: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)


def export(
    predictor: Predictor,
    *,
    store_root: Path,
    name: str,
    golden_images: Sequence[bytes],
    provenance: Provenance,
    onnx: bool | None = None,
) -> Path:
    """Scripts, verifies and publishes a `Predictor` as the next version of `name`.

    Args:
        predictor: the model, on the CPU, in float32.
        store_root: the folder of the model store.
        name: the name of the model.
        golden_images: a few encoded images; images like those of the training test the most.
        provenance: where the model comes from.
        onnx: whether the twin `model.onnx` is written too; None writes it if its packages are installed.

    Returns:
        the folder of the new version.

    Raises:
        ExportError: the verification failed; nothing was published.
        ValueError: the name is not valid for a model, or there are no golden images.
        OSError: the store cannot be written; nothing was published.
    """
    if not golden_images:
        raise ValueError("At least one golden image is needed: without one, no service could check the model.")
    with_onnx = not missing_onnx_packages() if onnx is None else onnx
    predictor = predictor.eval()
    golden = GoldenExamples(examples=tuple(_golden_example(predictor, encoded) for encoded in golden_images))
    pixels, scripted = _golden_pixels(golden), script(predictor)

    def write(folder: Path, model_version: int) -> Manifest:
        deviation = _checked_deviation(scripted, golden, pixels)
        onnx_deviation = None
        if with_onnx:
            write_onnx(predictor, folder / ONNX_FILE)
            onnx_deviation = verify_onnx(folder / ONNX_FILE, predictor, _prepared(predictor, pixels))
        fidelity = Fidelity(
            golden_count=len(golden.examples),
            max_abs_deviation=deviation,
            onnx_max_abs_deviation=onnx_deviation,
        )
        is_new = (predictor.interpolation, predictor.fit) != ("bilinear", "crop")
        manifest = new_manifest(
            name,
            model_version,
            tuple(predictor.class_names),
            _preprocessing(predictor),
            provenance,
            parameter_count=sum(parameter.numel() for parameter in predictor.model.parameters()),
            fidelity=fidelity,
            format_version=2 if is_new else 1,
        )
        extra_files = {MANIFEST_FILE: manifest.to_json(), GOLDEN_FILE: golden.model_dump_json()}
        torch.jit.save(scripted, str(folder / MODEL_FILE), _extra_files=extra_files)
        saved = torch.jit.load(str(folder / MODEL_FILE), map_location="cpu")  # type: ignore[no-untyped-call]
        _checked_deviation(saved, golden, pixels)
        return manifest

    return publish(store_root, name, write)


def script(predictor: Predictor) -> torch.jit.ScriptModule:
    """Compiles a `Predictor` to TorchScript, with its three methods and its attributes.

    A network that cannot be compiled is traced instead: what it does with two images is what it does with any.

    Raises:
        ExportError: it cannot be traced either.
    """
    try:
        scripted = torch.jit.script(predictor)
    except Exception as error:  # of many kinds: the network is not written in TorchScript's part of Python
        size, channels = predictor.image_size, predictor.mean.numel()
        traced = copy.deepcopy(predictor)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what depends on the example; the golden images show whether it matters
            try:
                traced.model = torch.jit.trace(traced.model, torch.rand(2, channels, size, size))  # type: ignore[no-untyped-call]
            except Exception:
                raise ExportError(
                    f"The network cannot be compiled to TorchScript: {str(error).strip().splitlines()[0]} Nothing was "
                    "published."
                ) from error
        scripted = torch.jit.script(traced)
    assert isinstance(scripted, torch.jit.ScriptModule)
    return scripted


def _golden_example(predictor: Predictor, encoded: bytes) -> GoldenExample:
    pixels = as_planes(decode(encoded).to_array())  # (3, H, W)
    probabilities = predictor(pixels.unsqueeze(0))[0]  # (C,)
    if len(probabilities) != len(predictor.class_names):
        raise ExportError(
            f"The model gives {len(probabilities)} probabilities, but {len(predictor.class_names)} class names are "
            "given. Nothing was published."
        )
    if not probabilities.isfinite().all():
        raise ExportError("The model gives NaN for a golden image: has its training diverged? Nothing was published.")
    # Validation would decode the bytes as base64; `model_construct` takes them as they are.
    return GoldenExample.model_construct(image=encoded, probabilities=tuple(probabilities.tolist()))


def _golden_pixels(golden: GoldenExamples) -> list[torch.Tensor]:
    """Returns the golden images, each `(1, 3, H, W)`."""
    return [as_planes(decode(example.image).to_array()).unsqueeze(0) for example in golden.examples]


def _prepared(module: Predictor | torch.jit.ScriptModule, pixels: list[torch.Tensor]) -> torch.Tensor:
    """Returns images, each `(1, 3, H, W)`, as `classify` takes them, `(N, 3, S, S)`."""
    return torch.cat([module.resize_and_crop(image) for image in pixels])


def _checked_deviation(scripted: torch.jit.ScriptModule, golden: GoldenExamples, pixels: list[torch.Tensor]) -> float:
    """Returns the largest deviation from the golden probabilities, and refuses one above `MAX_SCRIPTED_DEVIATION`."""
    expected = torch.tensor([example.probabilities for example in golden.examples])  # (N, C)
    alone = torch.cat([scripted(image) for image in pixels])
    # A traced network may have taken the size of its batch for a constant.
    together = scripted.classify(_prepared(scripted, pixels))
    deviation = float(torch.cat([alone - expected, together - expected]).abs().max())
    if not deviation <= MAX_SCRIPTED_DEVIATION:  # NaN is not
        raise ExportError(
            f"The scripted model deviates from the eager one by {deviation:.2g} (at most "
            f"{MAX_SCRIPTED_DEVIATION:g} is allowed). Nothing was published."
        )
    return deviation


def new_manifest(
    name: str,
    version: int,
    class_names: tuple[str, ...],
    preprocessing: Preprocessing,
    provenance: Provenance,
    *,
    parameter_count: int,
    fidelity: Fidelity,
    format_version: Literal[1, 2],
) -> Manifest:
    """Returns the manifest of a version that is published now, without its files.

    Args:
        name: the name of the model.
        version: the number of the version.
        class_names: the names of the classes, in the order of the probabilities.
        preprocessing: how pixels become the network's input.
        provenance: where the model comes from.
        parameter_count: how many parameters the network has.
        fidelity: how far its files were found to deviate.
        format_version: the version of the artifact's format that the model needs.
    """
    return Manifest(
        format_version=format_version,
        name=name,
        version=version,
        created_at=datetime.now(UTC).replace(microsecond=0),
        class_names=class_names,
        preprocessing=preprocessing,
        architecture=Architecture(name=provenance.architecture, parameter_count=parameter_count),
        training_data=provenance.training_data,
        licence=provenance.licence,
        source=provenance.source,
        metrics=dict(provenance.metrics),
        seeds=dict(provenance.seeds),
        library_versions={"python": platform.python_version(), **installed_versions(_LIBRARIES)},
        fidelity=fidelity,
    )


def _preprocessing(predictor: Predictor) -> Preprocessing:
    return Preprocessing(
        resize_size=predictor.resize_size,
        image_size=predictor.image_size,
        mean=tuple(predictor.mean.flatten().tolist()),
        std=tuple(predictor.std.flatten().tolist()),
        interpolation=predictor.interpolation,  # type: ignore[arg-type] # one of the two: its constructor checks
        fit=predictor.fit,  # type: ignore[arg-type]
        temperature=float(predictor.temperature),
    )
