"""What a published version of a model says about itself: the files' names, `manifest.json` and the golden examples.

training fills a folder, returns a Manifest -> app.store.publishing -> <store>/<name>/<version>/ -> the service reads it
"""

from __future__ import annotations

import re
import warnings
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Base64Bytes, BaseModel, ConfigDict, Field, ValidationError

from app.errors import ArtifactError
from app.store.regular_files import read_small

MODEL_FILE = "model.pt"
"""The model as TorchScript."""
# TorchScript is deprecated upstream, and every call warns of it. It is the artifact's format by design
# (docs/artifact.md). All that reads or writes an artifact imports this module, which switches the warnings off.
warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is (deprecated|not supported)")

ONNX_FILE = "model.onnx"
"""The twin of `classify` for faster engines. Not every version has one."""
MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES: Final = 10_000_000
"""A manifest of 100,000 long class names has a third of that."""
SIGNATURE_FILE = "manifest.sig"
"""The Ed25519 signature of the manifest's bytes (RFC 8032), 64 bytes. Only signed versions have one."""
GOLDEN_FILE = "golden.json"
"""The golden examples, as an extra file inside `model.pt`."""

MODEL_NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
"""What a model may be called: safe as a folder name, in a URL and as a metric label."""


def version_number(text: str) -> int | None:
    """Returns the version that a text names; None if it is no number of at most nine digits."""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


class _Frozen(BaseModel):
    # Fields of later releases are ignored, so that an older service can serve a newer artifact of the same format.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Preprocessing(_Frozen):
    """How pixels become the network's input; `training.export.predictor.Predictor` is the definition."""

    resize_size: int = Field(ge=1, description="The shorter side before the crop, in pixels")
    image_size: int = Field(ge=1, description="The side of the central crop, in pixels")
    mean: tuple[float, ...] = Field(description="The mean of each channel, for samples in [0, 1]")
    std: tuple[float, ...] = Field(description="The standard deviation of each channel, for samples in [0, 1]")
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    fit: Literal["crop", "squash"] = Field(
        default="crop", description="crop: the centre is cut out; squash: each side is resized by itself"
    )
    antialias: Literal[True] = True
    temperature: float = Field(default=1.0, gt=0, description="Divides the logits")


class Architecture(_Frozen):
    """The network."""

    name: str
    parameter_count: int = Field(ge=0)


class TrainingData(_Frozen):
    """The images that the network learned from."""

    name: str
    licence: str | None = None
    image_count: int | None = Field(default=None, ge=0)


class Fidelity(_Frozen):
    """How far the scripted artifact is from the eager model, measured at export on the golden examples."""

    golden_count: int = Field(ge=0)
    max_abs_deviation: float = Field(ge=0, description="Largest |p_scripted - p_eager|, float32 on CPU")
    onnx_max_abs_deviation: float | None = Field(
        default=None, ge=0, description="Largest |p_onnx - p_eager| of model.onnx, ONNX Runtime on CPU; None without it"
    )


def _plain_file_name(name: str) -> str:
    if name in {"", ".", ".."} or any(character in name for character in "/\\\0"):
        raise ValueError(f"{name!r} is not a plain file name")
    return name


class FileEntry(_Frozen):
    """One file of the artifact."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class Manifest(_Frozen):
    """What one published version of a model is.

    The same text stands in `manifest.json` and inside `model.pt`. Only `files` differs. A file cannot hold its own
    hash, so the copy inside lists no files.
    """

    format_version: Literal[1, 2] = Field(
        default=1,
        description="2 for what a service that knows only 1 would compute wrongly: bicubic, squash, no model.pt",
    )
    name: str = Field(pattern=MODEL_NAME_PATTERN)
    version: int = Field(ge=1)
    created_at: datetime
    class_names: tuple[str, ...] = Field(min_length=1, description="In the order of the probabilities")
    preprocessing: Preprocessing
    architecture: Architecture
    training_data: TrainingData
    licence: str | None = Field(default=None, description="The licence of the weights")
    source: str | None = Field(default=None, description="Where the weights come from")
    metrics: dict[str, float] = Field(default_factory=dict)
    seeds: dict[str, int] = Field(default_factory=dict)
    library_versions: dict[str, str] = Field(default_factory=dict)
    fidelity: Fidelity
    files: dict[Annotated[str, AfterValidator(_plain_file_name)], FileEntry] = Field(
        default_factory=dict, description="The files of the version's folder"
    )

    def to_json(self) -> str:
        """Returns the text of `manifest.json`."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, origin: str) -> Manifest:
        """Reads a manifest from its text.

        Args:
            text: the JSON.
            origin: where the text was read from, for the error's sentence.

        Raises:
            ArtifactError: the text is not JSON, or a field is missing or wrong.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the text"
            raise ArtifactError(f"{origin} is not a valid manifest: {where}: {first['msg']}.") from error

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Reads `manifest.json` in the folder of a published version.

        Raises:
            ArtifactError: the file is missing, too long or invalid.
        """
        path = folder / MANIFEST_FILE
        try:
            return cls.from_json(read_small(path, max_bytes=MAX_MANIFEST_BYTES), origin=str(path))
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error


class GoldenExample(_Frozen):
    """An encoded image and the probabilities that the eager model gave for it."""

    image: Base64Bytes
    probabilities: tuple[float, ...]


class GoldenExamples(_Frozen):
    """The content of the extra file `golden.json`."""

    examples: tuple[GoldenExample, ...] = ()
