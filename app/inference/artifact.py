"""What is known about a model, and how its files are verified.

a reference -> manifest.json, and its signature where keys are trusted -> sha256 of each file -> VerifiedFiles
"""

from __future__ import annotations

import shutil
import weakref
from dataclasses import dataclass
from pathlib import Path

from app.images.geometry import Geometry
from app.store.manifest import MANIFEST_FILE, MODEL_FILE, GoldenExample, Manifest
from app.store.model_store import ModelStore, check_place, verify_files
from app.store.references import is_file_reference, split_reference
from app.store.signatures import SignatureError, copy_of


@dataclass(frozen=True)
class VerifiedFiles:
    """The files of a model that were found to be the published ones.

    Attributes:
        model_file: where the TorchScript file lies, if there is one. Where keys are trusted, it is a private copy,
            which goes with this object.
        manifest: the version's manifest; None for the path of a file.
    """

    model_file: Path
    manifest: Manifest | None = None

    @property
    def has_torchscript(self) -> bool:
        """Whether there is a TorchScript file. A version that was imported from ONNX has none."""
        return self.manifest is None or MODEL_FILE in self.manifest.files


@dataclass(frozen=True)
class Artifact:
    """What is known about a model whose answers are not yet proven.

    Attributes:
        files: the model's files. Engines load it from there.
        name: the model's name.
        version: the published number, or `unversioned`.
        class_names: the names of the C classes, in the order of the probabilities.
        manifest: the model's manifest; None for a plain TorchScript file.
        golden: the golden examples; empty for a plain TorchScript file.
        geometry: how an image becomes the square that `classify` takes; None if the model has only `forward`.
        onnx_twin: the verified file of `classify` as ONNX, `images` uint8 `(N, 3, S, S)` -> `probabilities` `(N, C)`;
            None if the model has no twin.
    """

    files: VerifiedFiles
    name: str
    version: str
    class_names: tuple[str, ...]
    manifest: Manifest | None
    golden: tuple[GoldenExample, ...]
    geometry: Geometry | None
    onnx_twin: Path | None = None

    @property
    def is_split(self) -> bool:
        """Whether the model has `classify` and `resize_and_crop` of their own, so that images can be batched."""
        return self.geometry is not None


def verify(reference: str, store: ModelStore) -> VerifiedFiles:
    """Reads a model's files and compares them with its manifest. None of them is loaded.

    Args:
        reference: `NAME` or `NAME/VERSION` in the store, or the path of a TorchScript file.
        store: the model store.

    Raises:
        UnknownModelError: there is no such model, version or file.
        SignatureError: keys are trusted, and none of them has signed the model. Nothing of it has been parsed.
        ArtifactError: the model is damaged.
    """
    path = Path(reference)
    if is_file_reference(reference) and not (path.name == MODEL_FILE and path.with_name(MANIFEST_FILE).is_file()):
        if store.trusted_keys is not None:
            raise SignatureError(
                f"{reference} is a file of its own, and only signed models of the store may be loaded."
            )
        return VerifiedFiles(path)
    if is_file_reference(reference):  # a published version that lies outside a store
        folder = path.parent
        manifest = store.read_manifest(folder)
    else:
        folder = store.resolve(*split_reference(reference))
        manifest = store.read_manifest(folder)
        check_place(folder, manifest)
    if store.trusted_keys is None:
        verify_files(folder, manifest)
        return VerifiedFiles(folder / MODEL_FILE, manifest)
    # What is loaded must be what was verified, even if somebody who can write to the store changes it in between.
    private = copy_of(folder, manifest)
    files = VerifiedFiles(private / MODEL_FILE, manifest)
    weakref.finalize(files, shutil.rmtree, private, ignore_errors=True)
    verify_files(private, manifest)
    return files
