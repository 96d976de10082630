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
    scripted = script(predictor)

    def write(folder: Path, model_version: int) -> Manifest:
        deviation = _checked_deviation(scripted, golden)
        onnx_deviation = None
        if with_onnx:
            write_onnx(predictor, folder / ONNX_FILE)
            onnx_deviation = verify_onnx(folder / ONNX_FILE, predictor, _prepared(predictor, golden))
        fidelity = Fidelity(
            golden_count=len(golden.examples),
            max_abs_deviation=deviation,
            onnx_max_abs_deviation=onnx_deviation,
        )
        manifest = _manifest(predictor, name, model_version, provenance, fidelity)
        extra_files = {MANIFEST_FILE: manifest.to_json(), GOLDEN_FILE: golden.model_dump_json()}
        torch.jit.save(scripted, str(folder / MODEL_FILE), _extra_files=extra_files)
        saved = torch.jit.load(str(folder / MODEL_FILE), map_location="cpu")  # type: ignore[no-untyped-call]
        _checked_deviation(saved, golden)
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


def _prepared(predictor: Predictor, golden: GoldenExamples) -> torch.Tensor:
    """Returns the golden images as `classify` takes them, `(N, 3, S, S)`."""
    return torch.cat([predictor.resize_and_crop(image) for image in _golden_pixels(golden)])


def _golden_pixels(golden: GoldenExamples) -> list[torch.Tensor]:
    """Returns the golden images, each `(1, 3, H, W)`."""
    return [as_planes(decode(example.image).to_array()).unsqueeze(0) for example in golden.examples]


def _checked_deviation(scripted: torch.jit.ScriptModule, golden: GoldenExamples) -> float:
    """Returns the largest deviation from the golden probabilities, and refuses one above `MAX_SCRIPTED_DEVIATION`."""
    deviations = []
    for example in golden.examples:
        probabilities = scripted(as_planes(decode(example.image).to_array()).unsqueeze(0))[0]
        deviations.append((probabilities - torch.tensor(example.probabilities)).abs().max())
    # A traced network may have taken the size of its batch for a constant.
    prepared = torch.cat([scripted.resize_and_crop(image) for image in _golden_pixels(golden)])
    expected = torch.tensor([example.probabilities for example in golden.examples])
    deviations.append((scripted.classify(prepared) - expected).abs().max())
    deviation = float(torch.stack(deviations).max())
    if not deviation <= MAX_SCRIPTED_DEVIATION:  # NaN is not
        raise ExportError(
            f"The scripted model deviates from the eager one by {deviation:.2g} (at most "
            f"{MAX_SCRIPTED_DEVIATION:g} is allowed). Nothing was published."
        )
    return deviation


def _manifest(
    predictor: Predictor, name: str, model_version: int, provenance: Provenance, fidelity: Fidelity
) -> Manifest:
    is_new = (predictor.interpolation, predictor.fit) != ("bilinear", "crop")
    return Manifest(
        format_version=2 if is_new else 1,
        name=name,
        version=model_version,
        created_at=datetime.now(UTC).replace(microsecond=0),
        class_names=tuple(predictor.class_names),
        preprocessing=Preprocessing(
            resize_size=predictor.resize_size,
            image_size=predictor.image_size,
            mean=tuple(predictor.mean.flatten().tolist()),
            std=tuple(predictor.std.flatten().tolist()),
            interpolation=predictor.interpolation,  # type: ignore[arg-type] # one of the two: its constructor checks
            fit=predictor.fit,  # type: ignore[arg-type]
            temperature=float(predictor.temperature),
        ),
        architecture=Architecture(
            name=provenance.architecture,
            parameter_count=sum(parameter.numel() for parameter in predictor.model.parameters()),
        ),
        training_data=provenance.training_data,
        licence=provenance.licence,
        source=provenance.source,
        metrics=dict(provenance.metrics),
        seeds=dict(provenance.seeds),
        library_versions={"python": platform.python_version(), **installed_versions(_LIBRARIES)},
        fidelity=fidelity,
    )
