"""Publishes a model that was trained elsewhere as the next version of a model in the store.

source -> which kind it is -> network or ONNX, preprocessing, labels -> verify -> publish; nothing in it is executed
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from app.errors import ArtifactError
from app.images.decode import decode
from app.images.geometry import Geometry
from app.images.resize import resize_and_crop
from app.store.labels import read_labels
from app.store.manifest import (
    GOLDEN_FILE,
    ONNX_FILE,
    Fidelity,
    GoldenExample,
    GoldenExamples,
    Manifest,
    TrainingData,
)
from app.store.publishing import publish
from training.errors import SourceError
from training.export.export import Provenance, export, new_manifest
from training.export.import_pretrained import GOLDEN_FOLDER
from training.importing.preprocessing import Given


@dataclass(frozen=True)
class Source:
    """A model that was trained elsewhere, and what its file does not say.

    Attributes:
        path: the file, or the folder of Hugging Face.
        architecture: the network that weights belong to, `timm:NAME` or `torchvision:NAME`.
        labels: a file with the names of the classes.
        given: the preprocessing, as far as the caller says it.
        golden: encoded images that prove the model wherever it is loaded; empty takes those that come with training.
        licence: the licence of the weights.
    """

    path: Path
    architecture: str | None = None
    labels: Path | None = None
    given: Given = field(default_factory=Given)
    golden: tuple[Path, ...] = ()
    licence: str | None = None

    def golden_images(self) -> list[bytes]:
        """Returns the encoded images that prove the model.

        Raises:
            SourceError: one of them cannot be read.
        """
        try:
            return [path.read_bytes() for path in self.golden or sorted(GOLDEN_FOLDER.glob("*.jpg"))]
        except OSError as error:
            raise SourceError(f"{error.filename} cannot be read: {error.strerror}.") from error

    def provenance(self, architecture: str) -> Provenance:
        """Returns where the model comes from, as far as that is known.

        Args:
            architecture: what the network is called.
        """
        return Provenance(
            architecture=architecture,
            training_data=TrainingData(name="unknown"),
            licence=self.licence,
            source=self.path.name,
        )

    def names(self, own: list[str] | None = None) -> list[str]:
        """Returns the names of the classes.

        Args:
            own: the names that the model has itself.

        Raises:
            SourceError: nobody says them.
            ArtifactError: the file of labels cannot be read.
        """
        if self.labels:
            return list(read_labels(self.labels))
        if own:
            return own
        raise SourceError(f"{self.path} does not say what its classes are called: give --labels labels.txt.")


def import_model(source: Source, *, store_root: Path, name: str) -> Path:
    """Publishes a model that was trained elsewhere.

    Args:
        source: the model.
        store_root: the folder of the model store.
        name: the name of the model in the store.

    Returns:
        the folder of the new version.

    Raises:
        SourceError: it cannot be read, or is not an image classifier that can be published.
        ExportError: the verification failed. Nothing was published, as with every other error.
        ArtifactError: the file of labels cannot be read, or the store cannot be written.
    """
    path = source.path
    if not path.exists():
        raise SourceError(f"There is no file or folder {path}.")
    if path.suffix == ".onnx":
        return _import_onnx(source, store_root, name)
    return _import_network(source, store_root, name)


def _import_network(source: Source, store_root: Path, name: str) -> Path:
    from training.export.predictor import Predictor

    path = source.path
    own_names: list[str] | None = None
    if path.is_dir():
        from training.importing.hugging_face import CONFIG_FILE, read_folder

        if not (path / CONFIG_FILE).exists():
            raise SourceError(f"{path} has no {CONFIG_FILE}: it is not the folder of a model of Hugging Face.")
        network, own, own_names = read_folder(path)
        architecture = f"transformers:{type(network.classifier).__name__}"
    else:
        from training.importing.architectures import network_with
        from training.importing.weights import read_tensors

        if not source.architecture:
            raise SourceError(
                f"{path} holds weights, and not the network that they belong to: give --architecture timm:NAME or "
                "torchvision:NAME."
            )
        network, own = network_with(source.architecture, read_tensors(path))
        architecture = source.architecture
    preprocessing, names = source.given.over(own), source.names(own_names)
    try:
        predictor = Predictor(
            network,
            names,
            image_size=preprocessing.image_size,
            resize_size=preprocessing.resize_size,
            mean=preprocessing.mean,
            std=preprocessing.std,
            interpolation=preprocessing.interpolation,
            fit=preprocessing.fit,
        )
    except ValueError as error:
        raise SourceError(str(error)) from error
    return export(
        predictor,
        store_root=store_root,
        name=name,
        golden_images=source.golden_images(),
        provenance=source.provenance(architecture),
    )


def _import_onnx(source: Source, store_root: Path, name: str) -> Path:
    from training.importing.onnx_file import answers, deviation_of, read_classifier, takes_one_at_a_time, twin_of

    classifier = read_classifier(source.path)
    given = source.given
    if classifier.image_size:
        if given.image_size not in {None, classifier.image_size}:
            raise SourceError(f"{source.path} takes images of {classifier.image_size}, and not {given.image_size}.")
        given = Given(**vars(given) | {"image_size": classifier.image_size})
    if classifier.takes_bytes:  # and normalises them by itself
        given = Given(**vars(given) | {"mean": (0.0,) * 3, "std": (1.0,) * 3})
    preprocessing, names = given.over(None), source.names()
    encoded = source.golden_images()
    images = np.stack([resize_and_crop(decode(image), Geometry.of(preprocessing)) for image in encoded])
    probabilities, gives_logits = answers(classifier, images, preprocessing)
    if probabilities.shape[1] != len(names):
        raise SourceError(f"The model has {probabilities.shape[1]} classes, and {len(names)} names are given.")
    twin = twin_of(classifier, preprocessing, gives_logits=gives_logits)
    deviation = deviation_of(twin, images, probabilities, one_by_one=takes_one_at_a_time(classifier))
    golden = GoldenExamples(
        examples=tuple(
            GoldenExample.model_construct(image=image, probabilities=tuple(row.tolist()))
            for image, row in zip(encoded, probabilities, strict=True)
        )
    )

    provenance = source.provenance(source.architecture or f"onnx:{classifier.model.graph.name or 'unnamed'}")

    def write(folder: Path, version: int) -> Manifest:
        (folder / ONNX_FILE).write_bytes(twin.SerializeToString())
        (folder / GOLDEN_FILE).write_text(golden.model_dump_json(), encoding="utf-8")
        return new_manifest(
            name,
            version,
            tuple(names),
            preprocessing,
            provenance,
            parameter_count=sum(int(np.prod(each.dims)) for each in classifier.model.graph.initializer),
            fidelity=Fidelity(golden_count=len(encoded), max_abs_deviation=0.0, onnx_max_abs_deviation=deviation),
            format_version=2,
        )

    try:
        return publish(store_root, name, write)
    except OSError as error:
        raise ArtifactError(f"The store {store_root} cannot be written: {error.strerror}.") from error
