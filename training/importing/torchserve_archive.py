"""Reads a TorchServe archive, `model.mar`: what it says about itself, and the files of its model. Nothing in it is run.

model.mar (a zip, a .tar.gz or a folder) -> MAR-INF/MANIFEST.json -> the handler that is known -> weights, labels

https://docs.pytorch.org/serve/default_handlers.html
"""

from __future__ import annotations

import ast
import json
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from app.store.manifest import Preprocessing
from training.errors import SourceError

HANDLER: Final = "image_classifier"
"""The handler whose archives can be published."""
HANDLED: Final = Preprocessing(resize_size=256, image_size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What that handler does to an image: torchvision's `Resize`, `CenterCrop`, `ToTensor` and `Normalize`."""
LABELS_FILE: Final = "index_to_name.json"
_MANIFEST: Final = "MAR-INF/MANIFEST.json"
_MAX_TEXT_BYTES: Final = 10_000_000
_MAX_MODEL_BYTES: Final = 20_000_000_000
_ELSEWHERE: Final = (
    "Handlers are programs, and are never run here. If the model classifies images, import its weights with "
    "`image-predictor import weights.pth --architecture ...`, which takes the preprocessing as options."
)


@dataclass(frozen=True)
class Archive:
    """An archive of TorchServe whose handler is `image_classifier`.

    Attributes:
        name: the name of the model.
        weights: the file of TorchScript or of weights, copied out of the archive.
        program: the text of the Python file that builds the network around weights; None for TorchScript.
        labels: the file with the names of the classes, copied out of the archive; None if there is none.
    """

    name: str
    weights: Path
    program: str | None
    labels: Path | None


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Yields what an archive holds; its copied files are there inside the `with` block only.

    Args:
        path: the archive: a zip, a .tar.gz, or a folder.

    Raises:
        SourceError: it is no archive of TorchServe, or has another handler or another kind of model.
    """
    with tempfile.TemporaryDirectory(prefix="mar-") as copies, _members(path) as members:
        manifest = _manifest(members, path)
        model = manifest.get("model")
        if not isinstance(model, dict):
            raise SourceError(f"{path}: {_MANIFEST} describes no model.")
        handler = str(model.get("handler"))
        if handler != HANDLER:
            kind = "its own handler" if handler.endswith(".py") or ":" in handler else "the handler"
            raise SourceError(f"{path} has {kind} {handler!r}, and only {HANDLER!r} is known here. {_ELSEWHERE}")
        weights = str(model.get("serializedFile"))
        if not weights.endswith((".pt", ".pth")):
            raise SourceError(
                f"{path} has the model {weights!r}, and only TorchScript and weights (.pt, .pth) are known here. "
                "`image-predictor import` takes ONNX files by themselves."
            )
        copy = members.copy(weights, Path(copies) / "weights.pt", _MAX_MODEL_BYTES)
        labels = Path(copies) / LABELS_FILE
        has_labels = members.has(LABELS_FILE)
        if has_labels:
            members.copy(LABELS_FILE, labels, _MAX_TEXT_BYTES)
        program = members.text(str(model["modelFile"])) if model.get("modelFile") else None
        yield Archive(str(model.get("modelName") or path.stem), copy, program, labels if has_labels else None)


def changes_the_network(program: str) -> str | None:
    """Returns what the Python file of an archive does besides choosing a network of torchvision; None for nothing else.

    A class that only calls the constructor of its base computes what the base computes. `load_state_dict` may rename
    weights, which fit or do not.

    Args:
        program: the text of the file.

    Raises:
        SourceError: it is not Python.
    """
    try:
        tree = ast.parse(program)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise SourceError(f"The archive's Python file cannot be read: {error}.") from error
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    sources = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    if not any(source.partition(".")[0] == "torchvision" for source in sources):
        return "it builds a network that is not torchvision's"
    for node in (member for each in classes for member in each.body):
        if isinstance(node, ast.FunctionDef) and node.name not in {"__init__", "load_state_dict"}:
            return f"it has a method {node.name!r} of its own"
    return None


def _manifest(members: _Members, path: Path) -> dict[str, Any]:
    if not members.has(_MANIFEST):
        raise SourceError(f"{path} has no {_MANIFEST}: it is no archive of TorchServe.")
    try:
        found = json.loads(members.text(_MANIFEST))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: {_MANIFEST} is not JSON.") from error
    if not isinstance(found, dict):
        raise SourceError(f"{path}: {_MANIFEST} is not a JSON object.")
    return found


class _Members:
    """The files of an archive, by their names inside it. Only names that were asked for are ever read."""

    def __init__(self, path: Path, sizes: dict[str, int], open_member: Callable[[str], Any]) -> None:
        # torch-model-archiver puts everything in a .tar.gz into a folder of the model's name.
        within = next((name.removesuffix(_MANIFEST) for name in sizes if name.endswith(f"/{_MANIFEST}")), "")
        within = "" if _MANIFEST in sizes else within
        self._path = path
        self._sizes = {name.removeprefix(within): size for name, size in sizes.items() if name.startswith(within)}
        self._open: Callable[[str], Any] = lambda name: open_member(within + name)

    def has(self, name: str) -> bool:
        """Returns whether there is a file of that name."""
        return name in self._sizes

    def text(self, name: str) -> str:
        """Returns the text of a file.

        Raises:
            SourceError: there is none of that name, it is too large, or not UTF-8.
        """
        with self._opened(name, _MAX_TEXT_BYTES) as file:
            try:
                return file.read(_MAX_TEXT_BYTES).decode("utf-8")
            except UnicodeDecodeError as error:
                raise SourceError(f"{self._path}: {name} is not UTF-8.") from error

    def copy(self, name: str, target: Path, max_bytes: int) -> Path:
        """Copies a file out of the archive, and returns where to.

        Raises:
            SourceError: there is none of that name, or it is too large.
        """
        with self._opened(name, max_bytes) as file, target.open("wb") as copy:
            shutil.copyfileobj(file, copy)
        return target

    @contextmanager
    def _opened(self, name: str, max_bytes: int) -> Iterator[IO[bytes]]:
        if name not in self._sizes:
            raise SourceError(f"{self._path} has no file {name!r}, which its manifest names.")
        if self._sizes[name] > max_bytes:
            raise SourceError(f"{self._path}: {name} has {self._sizes[name]:,} bytes; the limit is {max_bytes:,}.")
        try:
            with self._open(name) as file:
                yield file
        except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise SourceError(f"{self._path}: {name} cannot be read: {error}.") from error


@contextmanager
def _members(path: Path) -> Iterator[_Members]:
    sizes: dict[str, int]
    try:
        if path.is_dir():
            sizes = {str(each.relative_to(path)): each.stat().st_size for each in path.rglob("*") if each.is_file()}
            yield _Members(path, sizes, lambda name: (path / name).open("rb"))
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield _Members(path, {each.filename: each.file_size for each in archive.infolist()}, archive.open)
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as tar:
                entries = {str(PurePosixPath(each.name)): each for each in tar.getmembers() if each.isfile()}
                sizes = {name: each.size for name, each in entries.items()}
                yield _Members(path, sizes, lambda name: tar.extractfile(entries[name]))
        else:
            raise SourceError(f"{path} is neither a zip, nor a .tar.gz, nor a folder: it is no archive of TorchServe.")
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise SourceError(f"{path} cannot be read as an archive: {error}.") from error
