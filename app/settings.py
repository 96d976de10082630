"""Frozen settings, from flags and environment, validated at start.

command line, else PREDICTOR_* environment, else the default -> Settings -> everything that is built from them
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, CliImplicitFlag, SettingsConfigDict

from app.decode import ImageLimits
from app.formats import FORMATS


def _split_commas(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


class StoreSettings(BaseSettings):
    """Where the models are."""

    model_config = SettingsConfigDict(
        env_prefix="PREDICTOR_", frozen=True, extra="ignore", cli_kebab_case=True, cli_show_env_vars=True
    )

    model_store: Path = Field(default=Path("model_store"), description="Folder of published models")


class ModelSettings(StoreSettings):
    """Which model runs, where, and what it accepts; all that classifying without a server needs."""

    model: str = Field(
        default="imagenet",
        pattern=r"\S",
        description="Comma-separated models to serve: NAME, NAME/VERSION, or the path of a TorchScript file. "
        "The first one answers /predict",
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:N or mps")
    engine: Literal["auto", "torchscript", "openvino"] = Field(
        default="auto", description="What computes: auto takes the fastest that passes the golden check"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="Of the computation; bfloat16 is faster where the CPU has it, and less exact"
    )
    streams: int = Field(
        default=0,
        ge=0,
        le=256,
        description="Batches computed at once; 0: one for each usable core, or 1 on a GPU",
    )
    threads_per_stream: int = Field(default=1, ge=1, le=256, description="CPU threads that compute one batch")
    decode_threads: int = Field(
        default=0,
        ge=0,
        le=256,
        description="Threads that only decode; 0: none on a CPU, whose streams decode, or one for each core on a GPU",
    )
    max_batch_size: int = Field(default=8, ge=1, le=1024, description="Most images in one batch")
    max_batch_delay_ms: float = Field(
        default=0.0, ge=0, le=1000, description="How long a batch that is not full may wait for more images"
    )
    max_pixels: int = Field(default=100_000_000, ge=1, description="Most pixels of an image, from its header")
    formats: str = Field(
        default=",".join(FORMATS), pattern=r"\S", description="Comma-separated image formats that are served"
    )

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?|mps", value):
            raise ValueError(f"{value!r} is no device: use auto, cpu, cuda, cuda:N or mps")
        return value

    @field_validator("formats")
    @classmethod
    def _known_formats(cls, value: str) -> str:
        for name in _split_commas(value.upper()):
            if name not in FORMATS:
                raise ValueError(f"{name} is no format that can be served: use some of {', '.join(FORMATS)}")
        return value.upper()

    @property
    def model_references(self) -> tuple[str, ...]:
        """The models to serve, the default one first."""
        return _split_commas(self.model)

    @property
    def image_limits(self) -> ImageLimits:
        """What the decoder accepts."""
        switched_on = _split_commas(self.formats)
        return ImageLimits(max_pixels=self.max_pixels, formats=tuple(name for name in FORMATS if name in switched_on))


class Settings(ModelSettings):
    """Every setting of the service."""

    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for every one")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one")
    max_body_bytes: int = Field(default=20_000_000, ge=1, description="Most bytes of a request's body")
    max_images_per_request: int = Field(default=64, ge=1, description="Most images in one /predict/batch")
    max_pending_images: int = Field(
        default=128, ge=1, description="Most images admitted and not answered yet; more are refused with 503"
    )
    request_timeout_s: float = Field(default=30.0, gt=0, description="Most seconds from a request's head to its answer")
    drain_delay_s: float = Field(
        default=0.0, ge=0, description="Seconds to go on answering after SIGTERM, unready, until balancers notice"
    )
    drain_timeout_s: float = Field(default=30.0, ge=0, description="Most seconds to finish open requests after that")
    cors_origins: str = Field(
        default="",
        description="Comma-separated origins whose pages may call the service; * for all; empty for none",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least severe log line")
    access_log: CliImplicitFlag[bool] = Field(default=False, description="Log a line for every request")

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """The origins whose pages may call the service."""
        return _split_commas(self.cors_origins)


def usable_cores() -> int:
    """Returns how many cores this process may use: the affinity mask, and the cgroup's quota rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, max(1, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # not Linux, or cgroup v1
        pass
    return cores
