"""Loads a model's files and checks them: from a reference to a TorchScript module, with what is known about it.

verify: manifest.json, and its signature where keys are trusted -> sha256 of each file -> VerifiedFiles
load_verified: torch.jit.load -> check that it has what a Predictor must have -> Artifact
"""

from __future__ import annotations

import shutil
import weakref
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import ValidationError

from app.errors import ArtifactError
from app.inference.foreign_files import describe_foreign
from app.store.labels import LABEL_FILES, label_file, read_labels
from app.store.manifest import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    ONNX_FILE,
    GoldenExample,
    GoldenExamples,
    Manifest,
)
from app.store.model_store import ModelStore, check_place, verify_files
from app.store.references import UNVERSIONED, is_file_reference, name_of_file, split_reference
from app.store.regular_files import open_regular
from app.store.signatures import SignatureError, copy_of

# Where other tools put the names of the classes.
_SIMILAR_NAMES = ("classes", "names", "labels", "categories", "idx_to_class", "class_to_idx", "id2label", "label2id")


@dataclass(frozen=True)
class VerifiedFiles:
    """The files of a model that were found to be the published ones.

    Attributes:
        model_file: the TorchScript file. Where keys are trusted, it is a private copy, which goes with this object.
        manifest: the version's manifest; None for the path of a file.
    """

    model_file: Path
    manifest: Manifest | None = None


@dataclass(frozen=True)
class Artifact:
    """A model in memory, on the CPU, whose answers are not yet proven.

    Attributes:
        files: the files that the model was loaded from. Engines may read the twin as long as the model is there.
        name: the model's name.
        version: the published number, or `unversioned`.
        module: the scripted model, in eval mode.
        class_names: the names of the C classes, in the order of the probabilities.
        manifest: the model's manifest; None for a plain TorchScript file.
        golden: the golden examples; empty for a plain TorchScript file.
        image_size: the side S of the images that `classify` takes, in pixels; None if the model has only `forward`.
        resize_size: the shorter side before the crop, in pixels; None if the model has only `forward`.
        onnx_twin: the verified file of `classify` as ONNX, `images` uint8 `(N, 3, S, S)` -> `probabilities` `(N, C)`;
            None if the model has no twin.
    """

    files: VerifiedFiles
    name: str
    version: str
    module: torch.jit.ScriptModule
    class_names: tuple[str, ...]
    manifest: Manifest | None
    golden: tuple[GoldenExample, ...]
    image_size: int | None
    resize_size: int | None
    onnx_twin: Path | None = None

    @property
    def is_split(self) -> bool:
        """Whether the model has `classify` and `resize_and_crop` of their own, so that images can be batched."""
        return self.image_size is not None


def load_artifact(reference: str, store: ModelStore) -> Artifact:
    """Verifies and loads a model, as `verify` and `load_verified` do, and raises what they raise."""
    return load_verified(verify(reference, store))


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
    if is_file_reference(reference):
        if store.trusted_keys is not None:
            raise SignatureError(
                f"{reference} is a file of its own, and only signed models of the store may be loaded."
            )
        return VerifiedFiles(Path(reference))
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


def load_verified(files: VerifiedFiles) -> Artifact:
    """Loads a model.

    Args:
        files: the model's files.

    Raises:
        ArtifactError: the file is no TorchScript, or not a classifier that can be served.
    """
    path, published = files.model_file, files.manifest
    try:
        open_regular(path).close()
    except FileNotFoundError as error:
        raise ArtifactError(f"There is no file {path}.") from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error
    extra_files = {MANIFEST_FILE: "", GOLDEN_FILE: ""}
    try:
        module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra_files)  # type: ignore[no-untyped-call]
    except Exception as error:  # torch raises RuntimeError, ValueError and others, by the damage
        try:
            foreign = describe_foreign(path)
        except OSError as unreadable:
            raise ArtifactError(f"{path} cannot be read: {unreadable.strerror}.") from unreadable
        reason = f"it is {foreign}." if foreign else (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ArtifactError(f"{path} cannot be loaded as TorchScript: {reason}") from error
    module.eval()
    manifest = published
    if manifest is None and extra_files[MANIFEST_FILE]:
        manifest = Manifest.from_json(extra_files[MANIFEST_FILE], origin=f"{MANIFEST_FILE} inside {path}")
    artifact = Artifact(
        files=files,
        name=manifest.name if manifest else name_of_file(path),
        version=str(manifest.version) if manifest else UNVERSIONED,
        module=module,
        class_names=_class_names(module, path),
        manifest=manifest,
        golden=_golden(extra_files[GOLDEN_FILE], path),
        image_size=_int_attribute(module, "image_size") if _has_split(module) else None,
        resize_size=_int_attribute(module, "resize_size") if _has_split(module) else None,
    )
    if published is not None and artifact.is_split and ONNX_FILE in published.files:
        artifact = replace(artifact, onnx_twin=path.parent / ONNX_FILE)
    if manifest is not None:
        _check_against_manifest(artifact, manifest, path)
    return artifact


def _check_against_manifest(artifact: Artifact, manifest: Manifest, path: Path) -> None:
    promised = (manifest.class_names, manifest.preprocessing.image_size, manifest.preprocessing.resize_size)
    if (artifact.class_names, artifact.image_size, artifact.resize_size) != promised:
        raise ArtifactError(f"{path} has other class names or sizes than its manifest says.")
    if not artifact.golden:
        raise ArtifactError(f"{path} has a manifest but no golden examples, so that nothing can be verified.")


def _class_names(module: torch.jit.ScriptModule, path: Path) -> tuple[str, ...]:
    names = getattr(module, "class_names", None)
    if names is None and (beside := label_file(path)):
        return read_labels(beside)
    if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    raise ArtifactError(
        f"{path} has no class list: {_found_instead(module, names)}. Give the module an attribute "
        "`class_names: List[str]`, in the order of the probabilities, before scripting it (torch.jit.trace keeps "
        f"none), or put one of {', '.join(LABEL_FILES)} beside the file."
    )


def _found_instead(module: torch.jit.ScriptModule, names: object) -> str:
    """Says what a module has in the place of its class names."""
    if names is not None:
        if not names:
            return "its class_names is empty"
        if isinstance(names, list | tuple):
            return f"its class_names holds {type(names[0]).__name__}, not str"
        return f"its class_names is a {type(names).__name__}, not a list"
    similar = [name for name in _SIMILAR_NAMES if isinstance(getattr(module, name, None), list | tuple | dict)]
    if similar:
        return f"it has `{similar[0]}`, but no attribute class_names"
    return "it has no attribute class_names"


def _has_split(module: torch.jit.ScriptModule) -> bool:
    """Returns whether a module has the two halves of `forward`, and their sizes; a plain one has only `forward`."""
    has_halves = all(hasattr(module, method) for method in ("classify", "resize_and_crop"))
    return has_halves and all(_int_attribute(module, size) is not None for size in ("image_size", "resize_size"))


def _int_attribute(module: torch.jit.ScriptModule, name: str) -> int | None:
    value = getattr(module, name, None)
    return value if isinstance(value, int) else None


def _golden(text: str | bytes, path: Path) -> tuple[GoldenExample, ...]:
    if not text:
        return ()
    try:
        return GoldenExamples.model_validate_json(text).examples
    except ValidationError as error:
        raise ArtifactError(f"The golden examples inside {path} are damaged.") from error
