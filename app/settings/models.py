"""The settings of the models, of the computation and of images."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, CliImplicitFlag, InitSettingsSource, PydanticBaseSettingsSource

from app.images.limits import FORMATS, ImageLimits
from app.settings.lists import split_commas
from app.settings.platforms import platform_defaults
from app.store.places import default_store
from app.store.references import check_names, references
from app.system.cores import usable_cores
from app.system.environment import EnvironmentSettings
from app.system.memory import usable_memory

_DECODE_SHARE: Final = 4  # the rest is for models, bodies and libraries


class StoreSettings(EnvironmentSettings):
    """Model store."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns where settings come from; what a platform says comes last."""
        own = super().settings_customise_sources(
            settings_cls, init_settings, env_settings, dotenv_settings, file_secret_settings
        )
        return *own, InitSettingsSource(settings_cls, platform_defaults(os.environ))

    model_store: Path = Field(
        default_factory=default_store,
        description="Folder of the published models. By default ./model_store if there is one, else a folder of the "
        "user. Models of installed packages are found besides",
    )


class ModelSettings(StoreSettings):
    """Models, computation and images."""

    model: str = Field(
        default="imagenet",
        pattern=r"\S",
        description="Models to serve, separated by commas. Each is NAME, NAME/VERSION, or the path of a TorchScript "
        "file or of a folder with one model; ALIAS= before it gives the model another name. The first one is the "
        "default model and answers /predict. Two models must not have the same name",
    )
    device: str = Field(
        default="auto",
        description="Device to compute on: auto, cpu, mps (Apple's GPU), cuda (every CUDA GPU), or single GPUs "
        "separated by commas, such as cuda:0,cuda:1. auto takes every CUDA GPU, else Apple's GPU, else the CPU",
    )
    cores: int = Field(
        default=0, ge=0, le=4096, description="CPU cores to compute on. 0: every core that the process may use"
    )
    engine: Literal["auto", "torchscript", "openvino"] = Field(
        default="auto",
        description="Library that computes the probabilities. auto takes OpenVINO on a CPU, if the model has a twin "
        "that passes the golden check, else TorchScript; `image-predictor bench` compares them",
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="Precision of the computation. bfloat16 and float16 are less exact, and faster on devices that "
        "support them",
    )
    streams: int = Field(
        default=0,
        ge=0,
        le=256,
        description="Number of batches that are computed at the same time. 0: on a CPU one for each core and one to "
        "spare; on a GPU 2 for each GPU",
    )
    threads_per_stream: int = Field(
        default=0,
        ge=0,
        le=256,
        description="CPU threads that compute one batch. 0: one, and all for a batch that is alone if that is faster; "
        "the cores divided among the streams if --streams is set",
    )
    decode_threads: int = Field(
        default=0,
        ge=0,
        le=256,
        description="Threads that only decode images. 0: on a CPU none, because the streams decode; on a GPU one for "
        "each core",
    )
    max_batch_size: int = Field(default=8, ge=1, le=1024, description="Largest number of images in one batch")
    max_batch_delay_ms: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="Most milliseconds that a batch waits for more images before it is computed",
    )
    max_pixels: int = Field(
        default=125_000_000,
        ge=1,
        description="Largest number of pixels in an image. The number is read from the image's header, before decoding",
    )
    max_decode_mb: int = Field(
        default=0,
        ge=0,
        description="Most memory, in MB by an estimate from their headers, that images take while they are decoded. "
        "One that takes more is refused with 413, others wait. 0: a quarter of the memory of the machine or container",
    )
    isolate_decoding: CliImplicitFlag[bool] = Field(
        default=False,
        description="Decode every image in a process of its own that may do nothing else, not only those that take "
        "much work. Linux only",
    )
    formats: str = Field(
        default=",".join(FORMATS), pattern=r"\S", description="Image formats that are accepted, separated by commas"
    )
    trusted_keys: Path | None = Field(
        default=None,
        description="PEM file of public keys. With it, only models that one of these keys has signed are loaded",
    )

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda|cuda:\d{1,3}(,cuda:\d{1,3})*", value):
            raise ValueError(f"{value!r} is no device: use auto, cpu, mps, cuda, cuda:N or cuda:N,cuda:N")
        return value

    @field_validator("formats")
    @classmethod
    def _known_formats(cls, value: str) -> str:
        for name in split_commas(value.upper()):
            if name not in FORMATS:
                raise ValueError(f"{name} is no format that can be served: use some of {', '.join(FORMATS)}")
        return value.upper()

    @model_validator(mode="after")
    def _models_told_apart(self) -> Self:
        if self.trusted_keys is None:  # with keys, no file is loaded, and nothing unsigned is parsed
            check_names(self.model_references)
        return self

    @property
    def model_references(self) -> tuple[str, ...]:
        """The models to serve, each as NAME, NAME/VERSION or a path. The first one is the default model."""
        return references(self.model)

    @property
    def core_count(self) -> int:
        """The number of CPU cores to compute on. Every number of threads is derived from it."""
        return self.cores or usable_cores()

    @property
    def decode_bytes(self) -> int:
        """The most bytes that images may take while they are decoded."""
        return self.max_decode_mb * 1_000_000 or usable_memory() // _DECODE_SHARE

    @property
    def image_limits(self) -> ImageLimits:
        """The formats and the size of images that the decoder accepts."""
        switched_on = split_commas(self.formats)
        return ImageLimits(max_pixels=self.max_pixels, formats=tuple(name for name in FORMATS if name in switched_on))
