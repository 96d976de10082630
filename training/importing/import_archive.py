"""Publishes the model of a TorchServe archive, with the answers that its handler `image_classifier` gave.

model.mar -> TorchScript as it is, or weights in the network of torchvision that they fit -> Predictor -> publish
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from app.store.references import name_of_file
from training.errors import SourceError
from training.export.export import export
from training.export.predictor import Predictor
from training.importing.architectures import network_with, torchvision_networks_like
from training.importing.import_model import Source
from training.importing.torchserve_archive import HANDLED, Archive, changes_the_network, opened
from training.importing.weights import read_tensors


def import_archive(source: Source, *, store_root: Path, name: str | None) -> Path:
    """Publishes the model of a TorchServe archive as the next version of a model in the store.

    Args:
        source: the archive, and what it does not say.
        store_root: the folder of the model store.
        name: the name of the model in the store; None for the archive's own.

    Returns:
        the folder of the new version. TorchScript is published without a twin, as it cannot be converted.

    Raises:
        SourceError: it is no archive of an image classifier that can be published. Nothing of it was run.
        ExportError: the verification failed. Nothing was published, as with every other error.
        ArtifactError: the file of labels cannot be read.
    """
    if not source.path.exists():
        raise SourceError(f"There is no file or folder {source.path}.")
    with opened(source.path) as archive:
        network, architecture = _network(archive, source)
        labels = source.labels or archive.labels
        names = replace(source, labels=labels).names() if labels else _numbers(network)
        predictor = Predictor(
            network,
            names,
            image_size=HANDLED.image_size,
            resize_size=HANDLED.resize_size,
            mean=HANDLED.mean,
            std=HANDLED.std,
        )
        model_name = name or name_of_file(Path(f"{archive.name}.mar"))
        return export(
            predictor,
            store_root=store_root,
            name=model_name,
            golden_images=source.golden_images(),
            provenance=source.provenance(architecture),
            onnx=None if archive.program else False,
        )


def _network(archive: Archive, source: Source) -> tuple[nn.Module, str]:
    """Returns the network of an archive, from normalised images to logits, and what it is called."""
    if archive.program is None:
        try:
            module: nn.Module = torch.jit.load(str(archive.weights), map_location="cpu")  # type: ignore[no-untyped-call]
        except Exception as error:  # RuntimeError and others, by the damage
            raise SourceError(
                f"{source.path} has no Python file for its network, and its model is no TorchScript: "
                f"{str(error).strip().splitlines()[0]}"
            ) from error
        return module.float().eval(), "torchscript"
    architecture, program = source.architecture, archive.program
    if architecture is None and (change := changes_the_network(program)):
        raise SourceError(
            f"{source.path}: the archive's Python file is never run, and {change}. If its network computes what one of "
            "torchvision or timm computes, say which: --architecture torchvision:NAME."
        )
    try:
        tensors = read_tensors(archive.weights)
    except SourceError as error:
        raise SourceError(f"{source.path}: {str(error).replace(str(archive.weights), 'its model')}") from error
    if architecture is None:
        candidates = torchvision_networks_like(tensors)
        if len(candidates) != 1:
            found = f"several networks of torchvision: {', '.join(candidates)}" if candidates else "none of torchvision"
            raise SourceError(f"The weights of {source.path} fit {found}. Say which: --architecture torchvision:NAME.")
        architecture = f"torchvision:{candidates[0]}"
    return network_with(architecture, tensors)[0], architecture


def _numbers(network: nn.Module) -> list[str]:
    """Returns the numbers of the classes as their names, which TorchServe answers without `index_to_name.json`."""
    side = HANDLED.image_size
    with torch.no_grad():
        try:
            output = network(torch.zeros(1, 3, side, side))
        except Exception as error:  # of many kinds: the network takes something else
            raise SourceError(
                f"The model does not take images of {side} x {side}: {str(error).strip().splitlines()[-1]}"
            ) from error
    if not isinstance(output, torch.Tensor) or output.ndim != 2:
        raise SourceError("The model does not answer with one row of numbers for each image: it is no classifier.")
    return [str(number) for number in range(output.shape[1])]
