"""The commands `import` and `import-mar`: publish models that were trained, or served, elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field
from pydantic_settings import CliPositionalArg

from app.store.manifest import MODEL_NAME_PATTERN, ONNX_FILE
from app.store.places import default_store


class Import(BaseModel):
    """Publish a model that was trained elsewhere. Nothing that its files say is executed.

    SOURCE is a file of weights (.pth, .pt, .safetensors) of a network of timm or torchvision, an ONNX file, or a folder
    of Hugging Face. The preprocessing is the model's own as far as its files or its library say it.
    """

    source: CliPositionalArg[Path] = Field(description="The file or folder")
    name: str = Field(pattern=MODEL_NAME_PATTERN, description="The name of the model in the store")
    architecture: str | None = Field(
        default=None, description="The network that weights belong to: timm:NAME or torchvision:NAME"
    )
    labels: Path | None = Field(
        default=None,
        description="The names of the classes: a text file with one a line, a JSON list, index_to_name.json",
    )
    image_size: int | None = Field(default=None, ge=1, description="The side of the images that the network sees")
    resize_size: int | None = Field(default=None, ge=1, description="The shorter side before the centre is cut out")
    mean: list[float] | None = Field(default=None, description="The mean of each channel, of samples from 0 to 1")
    std: list[float] | None = Field(default=None, description="The standard deviation of each channel")
    interpolation: Literal["bilinear", "bicubic"] | None = Field(default=None, description="The filter of the resize")
    fit: Literal["crop", "squash"] | None = Field(
        default=None, description="Whether the centre is cut out, or each side is resized by itself"
    )
    golden: list[Path] = Field(
        default=[], description="A few images that prove the model wherever it is loaded; by default some photos"
    )
    licence: str | None = Field(default=None, description="The licence of the weights")
    store: Path = Field(default_factory=default_store, description="The model store")

    def cli_cmd(self) -> None:
        """Runs the command."""
        from training.importing.import_model import Source, import_model
        from training.importing.preprocessing import Given

        given = Given(
            self.image_size,
            self.resize_size,
            tuple(self.mean) if self.mean else None,
            tuple(self.std) if self.std else None,
            self.interpolation,
            self.fit,
        )
        source = Source(self.source, self.architecture, self.labels, given, tuple(self.golden), self.licence)
        print(f"Published {import_model(source, store_root=self.store, name=self.name)}")


class ImportMar(BaseModel):
    """Publish the model of a TorchServe archive whose handler is image_classifier. Nothing in it is executed.

    The answers stay the same: the resize to 256, the crop of 224, ImageNet's mean and std, the labels of
    index_to_name.json.
    """

    archive: CliPositionalArg[Path] = Field(description="The archive: model.mar, a .tar.gz, or a folder")
    name: str | None = Field(
        default=None, pattern=MODEL_NAME_PATTERN, description="The name in the store; by default the archive's own"
    )
    architecture: str | None = Field(
        default=None,
        description="The network that its weights belong to, torchvision:NAME or timm:NAME; by default the one of "
        "torchvision that they fit. TorchScript needs none",
    )
    labels: Path | None = Field(default=None, description="The names of the classes, in place of the archive's own")
    golden: list[Path] = Field(
        default=[], description="A few images that prove the model wherever it is loaded; by default some photos"
    )
    licence: str | None = Field(default=None, description="The licence of the weights")
    store: Path = Field(default_factory=default_store, description="The model store")

    def cli_cmd(self) -> None:
        """Runs the command."""
        from training.importing.import_archive import import_archive
        from training.importing.import_model import Source

        source = Source(self.archive, self.architecture, self.labels, golden=tuple(self.golden), licence=self.licence)
        folder = import_archive(source, store_root=self.store, name=self.name)
        print(f"Published {folder}")
        if not (folder / ONNX_FILE).exists():
            print("It is TorchScript, which only torch computes: serve it with `pip install 'image-predictor[torch]'`.")
