"""Says what a file is that was given as a model and is not TorchScript. Nothing of it is unpickled or run.

path -> first bytes; of a zip its list of files; of a pickle the names that it would import -> a phrase
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections import deque
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import IO, Final

from app.errors import ArtifactError

_HEAD_BYTES: Final = 512
_MAX_PICKLE_BYTES: Final = 4_000_000  # a pickle without its tensors; a large network's takes some 100 kB
_MAX_OPCODES: Final = 200_000

_SCRIPT_IT: Final = "build the network, load the weights into it, and save torch.jit.script(module)"
# What tensors, their containers and numpy's numbers need. A pickle that imports more holds objects of its own classes.
_MODULES_OF_WEIGHTS: Final = ("torch._utils", "torch._tensor", "torch.storage", "collections", "numpy", "_codecs")
_CLASSES_OF_WEIGHTS: Final = {"Size", "device", "Tensor", "dtype", "parameter.Parameter"}
# Files that tell a zip of another tool, by the end of their names.
_ZIPS: Final = {
    "serialized_exported_program.json": "a program of torch.export: save torch.jit.script(module) instead",
    "archive_format": "a program of torch.export: save torch.jit.script(module) instead",
    "MAR-INF/MANIFEST.json": "a model archive of TorchServe: take the TorchScript file out of it",
    "model.weights.h5": "a model of Keras",
    "variables/variables.index": "a model of TensorFlow",
}
_SIGNATURES: Final = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself: run `git lfs pull`"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b", "compressed by gzip: unpack it first"),
    (b"<", "a web page or XML, perhaps an answer that was saved in place of the file"),
)


def not_torchscript(path: Path, error: Exception) -> ArtifactError:
    """Returns the error that says why a file cannot be loaded as TorchScript: what it is, or else what was raised.

    Args:
        path: the file.
        error: what was raised.
    """
    try:
        foreign = describe_foreign(path)
    except OSError as unreadable:
        return ArtifactError(f"{path} cannot be read: {unreadable.strerror}.")
    reason = f"it is {foreign}." if foreign else (str(error).strip() or type(error).__name__).splitlines()[0]
    return ArtifactError(f"{path} cannot be loaded as TorchScript: {reason}")


def describe_foreign(path: Path) -> str | None:
    """Returns what a file is instead of TorchScript, to follow "It is"; None if that is unknown.

    Args:
        path: a file that torch cannot load as TorchScript.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if not head:
            return "empty"
        if head.startswith(b"PK\x03\x04"):
            return _describe_zip(file)
        if head[:1] == b"\x80" and head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}:
            file.seek(0)
            return _describe_pickle(file.read(_MAX_PICKLE_BYTES), skip_first=3)  # torch.save before 1.6 puts 3 in front
    if head[4:8] == b"TFL3":
        return "a model of TensorFlow Lite"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return f"a file of safetensors, which holds weights without code: {_SCRIPT_IT}"
    if head[:1] == b"\x08" and any(maker in head[:64] for maker in (b"pytorch", b"onnx", b"tf2onnx", b"skl2onnx")):
        return "an ONNX model: save torch.jit.script(module) instead"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((what for signature, what in _SIGNATURES if text.startswith(signature.lower())), None)


def _describe_zip(file: IO[bytes]) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if any(name.endswith("/constants.pkl") for name in names):
                return None  # TorchScript that is damaged: torch says how
            for ending, what in _ZIPS.items():
                if any(name.endswith(ending) for name in names):
                    return what
            pickled = [name for name in names if name.endswith("data.pkl")]
            if not pickled:
                return "a zip file of another kind"
            with archive.open(pickled[0]) as member:
                return _describe_pickle(member.read(_MAX_PICKLE_BYTES))
    except Exception:  # by the damage, zipfile raises BadZipFile, RuntimeError, zlib.error and others
        return "a zip file that is cut short or damaged"


def _describe_pickle(pickled: bytes, *, skip_first: int = 0) -> str:
    """Returns whether a pickle holds weights alone, or which class it would need.

    Args:
        pickled: the beginning of the pickle.
        skip_first: the number of pickles to pass over if others follow them.
    """
    classes = [name for name in _imported(pickled, pickles=skip_first + 1) if not _is_of_weights(*name)]
    if classes:
        name = ".".join(classes[0])
        return f"a pickled object of the class {name}, which is never unpickled here: save torch.jit.script(module)"
    return f"a pickled state_dict or checkpoint, which holds weights without code: {_SCRIPT_IT}"


def _is_of_weights(module: str, name: str) -> bool:
    if module == "torch":
        return name.endswith("Storage") or name in _CLASSES_OF_WEIGHTS or name.islower()
    return module in _MODULES_OF_WEIGHTS or module.startswith("numpy.") or module == "torch.nn.parameter"


def _imported(pickled: bytes, *, pickles: int) -> list[tuple[str, str]]:
    """Returns the (module, name) that the first pickles of some bytes import, in their order; they are only parsed."""
    stream = io.BytesIO(pickled)
    found: list[tuple[str, str]] = []
    texts: deque[str] = deque(maxlen=2)
    opcodes = islice(chain.from_iterable(pickletools.genops(stream) for _ in range(pickles)), _MAX_OPCODES)
    with suppress(Exception):  # cut short, or no pickle: pickletools raises ValueError and others
        for opcode, argument, _ in opcodes:
            if opcode.name == "GLOBAL":
                module, _, name = str(argument).partition(" ")
                found.append((module, name))
            elif opcode.name == "STACK_GLOBAL" and len(texts) == 2:
                found.append((texts[0], texts[1]))
            elif isinstance(argument, str):
                texts.append(argument)
    return found
