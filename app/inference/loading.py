"""Loads what is known about a model, from its verified files. The model itself is loaded by an engine.

manifest.json, golden.json inside model.pt (or beside it, where there is only model.onnx) -> Artifact
a plain TorchScript file -> torch loads it, to see what it has -> Artifact
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Final, cast, get_args

from pydantic import ValidationError

from app.errors import ArtifactError
from app.images.geometry import Fit, Geometry, Interpolation
from app.inference.artifact import Artifact, VerifiedFiles, verify
from app.inference.devices import has_torch, how_to_get_torch
from app.inference.foreign_files import not_torchscript
from app.store.labels import LABEL_FILES, label_file, read_labels
from app.store.manifest import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    ONNX_FILE,
    GoldenExample,
    GoldenExamples,
    Manifest,
)
from app.store.model_store import ModelStore
from app.store.references import UNVERSIONED, name_of_file
from app.store.regular_files import open_regular, read_small

# Where other tools put the names of the classes.
_SIMILAR_NAMES: Final = (
    "classes", "names", "labels", "categories", "idx_to_class", "class_to_idx", "id2label", "label2id",
)  # fmt: skip
_MAX_EXTRA_BYTES: Final = 100_000_000  # of one file inside model.pt; twenty photos of 12 MP have a third of it


def load_artifact(reference: str, store: ModelStore) -> Artifact:
    """Verifies and loads a model, as `verify` and `load_verified` do, and raises what they raise."""
    return load_verified(verify(reference, store))


def load_verified(files: VerifiedFiles) -> Artifact:
    """Loads what is known about a model.

    Args:
        files: the model's files.

    Raises:
        ArtifactError: a file is damaged, or is not a classifier that can be served.
    """
    manifest = files.manifest
    path = files.model_file if files.has_torchscript else files.model_file.with_name(GOLDEN_FILE)
    try:
        if files.has_torchscript:
            extra = _extra_files(path)
        else:  # it came as ONNX
            extra = {GOLDEN_FILE: read_small(path, max_bytes=_MAX_EXTRA_BYTES)}
    except FileNotFoundError as error:
        raise ArtifactError(f"There is no file {path}.") from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error
    if manifest is None and extra.get(MANIFEST_FILE):
        manifest = Manifest.from_json(extra[MANIFEST_FILE], origin=f"{MANIFEST_FILE} inside {path}")
    if manifest is None:
        return _plain(files)
    golden = _golden(extra.get(GOLDEN_FILE, b""), path)
    if not golden:
        raise ArtifactError(f"{path} has a manifest but no golden examples, so that nothing can be verified.")
    return Artifact(
        files=files,
        name=manifest.name,
        version=str(manifest.version),
        class_names=manifest.class_names,
        manifest=manifest,
        golden=golden,
        geometry=Geometry.of(manifest.preprocessing),
        onnx_twin=path.parent / ONNX_FILE if files.manifest and ONNX_FILE in files.manifest.files else None,
    )


def _extra_files(path: Path) -> dict[str, bytes]:
    """Returns the manifest and the golden examples that a TorchScript file has inside.

    Source: torch.jit.save puts `_extra_files` into the folder `extra` of its zip.

    Raises:
        ArtifactError: it is no TorchScript file.
        OSError: it cannot be read.
    """
    found = {}
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                _, _, name = entry.filename.partition("/extra/")
                if name in {MANIFEST_FILE, GOLDEN_FILE} and entry.file_size <= _MAX_EXTRA_BYTES:
                    found[name] = archive.read(entry)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise not_torchscript(path, error) from error
    return found


def _golden(text: bytes, path: Path) -> tuple[GoldenExample, ...]:
    if not text:
        return ()
    try:
        return GoldenExamples.model_validate_json(text).examples
    except ValidationError as error:
        raise ArtifactError(f"The golden examples inside {path} are damaged.") from error


def _plain(files: VerifiedFiles) -> Artifact:
    """Returns what a TorchScript file without a manifest is."""
    path = files.model_file
    if not has_torch():
        raise ArtifactError(f"{path} needs torch, which is not installed: {how_to_get_torch()}.")
    from app.inference.torchscript_engine import load_module

    module = load_module(path)
    return Artifact(
        files=files,
        name=name_of_file(path),
        version=UNVERSIONED,
        class_names=_class_names(module, path),
        manifest=None,
        golden=(),
        geometry=_geometry(module),
    )


def _class_names(module: object, path: Path) -> tuple[str, ...]:
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


def _found_instead(module: object, names: object) -> str:
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


def _geometry(module: object) -> Geometry | None:
    """Returns the geometry of a module that has the two halves of `forward`; None for one that has only `forward`."""
    has_halves = all(hasattr(module, method) for method in ("classify", "resize_and_crop"))
    resize_size, image_size = (getattr(module, name, None) for name in ("resize_size", "image_size"))
    if not (has_halves and isinstance(resize_size, int) and isinstance(image_size, int)):
        return None
    interpolation, fit = getattr(module, "interpolation", "bilinear"), getattr(module, "fit", "crop")
    if interpolation not in get_args(Interpolation) or fit not in get_args(Fit):
        return None  # only its own forward knows how
    return Geometry(resize_size, image_size, cast(Interpolation, interpolation), cast(Fit, fit))
