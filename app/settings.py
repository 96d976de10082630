"""Frozen settings, from flags and environment, validated at start.

command line, else PREDICTOR_* environment, else the default -> Settings -> everything that is built from them
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, CliImplicitFlag, SettingsConfigDict

from app import tracing
from app.cores import usable_cores
from app.decode import ImageLimits
from app.formats import FORMATS
from app.logs import LogFormat


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
    device: str = Field(
        default="auto", description="auto, cpu, mps, cuda (every GPU), or some of cuda:N, comma-separated"
    )
    cores: int = Field(default=0, ge=0, le=4096, description="CPU cores to compute on; 0: all that the process may use")
    engine: Literal["auto", "torchscript", "openvino"] = Field(
        default="auto", description="What computes: auto takes the fastest that passes the golden check"
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="Of the computation; the lower ones are faster where the device has them, and less exact",
    )
    streams: int = Field(
        default=0,
        ge=0,
        le=256,
        description="Batches computed at once; 0: measured on a CPU, 2 for each GPU",
    )
    threads_per_stream: int = Field(
        default=0, ge=0, le=256, description="CPU threads that compute one batch; 0: measured, or what --streams leaves"
    )
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

    trusted_keys: Path | None = Field(
        default=None, description="PEM file of public keys; only models that one of them has signed are loaded then"
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
        for name in _split_commas(value.upper()):
            if name not in FORMATS:
                raise ValueError(f"{name} is no format that can be served: use some of {', '.join(FORMATS)}")
        return value.upper()

    @property
    def model_references(self) -> tuple[str, ...]:
        """The models to serve, the default one first."""
        return _split_commas(self.model)

    @property
    def core_count(self) -> int:
        """The CPU cores to compute on: what all numbers of threads are derived from."""
        return self.cores or usable_cores()

    @property
    def image_limits(self) -> ImageLimits:
        """What the decoder accepts."""
        switched_on = _split_commas(self.formats)
        return ImageLimits(max_pixels=self.max_pixels, formats=tuple(name for name in FORMATS if name in switched_on))


class Settings(ModelSettings):
    """Every setting of the service."""

    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for every one")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one")
    workers: str = Field(
        default="auto",
        description="Processes that share the cores, or auto: one, or several where Python is slower than the model",
    )
    max_body_bytes: int = Field(default=20_000_000, ge=1, description="Most bytes of a request's body")
    max_images_per_request: int = Field(default=64, ge=1, description="Most images in one /predict/batch")
    max_pending_images: int = Field(
        default=128, ge=1, description="Most images admitted and not answered yet; more are refused with 503"
    )
    max_pending_bytes: int = Field(
        default=256_000_000, ge=1, description="Most bytes of bodies in memory, arriving or unanswered; else 503"
    )
    max_connections: int = Field(
        default=10_000, ge=1, description="Most open connections; beyond, the one that waits longest is closed"
    )
    min_upload_bytes_per_s: int = Field(
        default=1_000, ge=0, description="Least pace of a body, over every 5 seconds; 0 for none"
    )
    idle_timeout_s: float = Field(
        default=75.0, gt=0, description="Seconds until an idle connection is closed; more than the balancer's own"
    )
    request_timeout_s: float = Field(
        default=30.0, gt=0, description="Most seconds from a request's head to its answer; a client may ask for less"
    )
    drain_delay_s: float = Field(
        default=0.0, ge=0, description="Seconds to go on answering after SIGTERM, unready, until balancers notice"
    )
    drain_timeout_s: float = Field(default=30.0, ge=0, description="Most seconds to finish open requests after that")
    watch_store_s: float = Field(
        default=5.0, ge=0, description="Seconds between looks at the store for new versions; 0: only when asked"
    )
    memory_budget_mb: int = Field(
        default=0, ge=0, description="Most memory that models may take, by estimate, in each worker; 0: any"
    )
    cors_origins: str = Field(
        default="",
        description="Comma-separated origins whose pages may call the service; * for all; empty for none",
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="File of `name:sha256` lines, read again when it changes; a key is needed then, except by probes",
    )
    api_keys: str = Field(default="", description="The same lines, comma-separated, in addition to or without a file")
    admin_keys_file: Path | None = Field(
        default=None, description="Such a file for admins; without one nothing can be reloaded or unloaded over HTTP"
    )
    metrics_open: CliImplicitFlag[bool] = Field(default=False, description="Let /metrics be read without a key")
    tls_cert_file: Path | None = Field(default=None, description="PEM file of the certificate and its chain; for HTTPS")
    tls_key_file: Path | None = Field(default=None, description="PEM file of its private key")
    tls_key_password_file: Path | None = Field(
        default=None, description="File of the private key's password, where it has one"
    )
    tls_ca_file: Path | None = Field(
        default=None, description="PEM file of the authorities that clients must have a certificate from"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least severe log line")
    log_format: LogFormat = Field(
        default="console", description="console for people, json for a JSON object a line, each with its request's id"
    )
    access_log: CliImplicitFlag[bool] = Field(default=False, description="Log a line for every request")
    otlp_endpoint: str = Field(
        default="",
        pattern=r"^(https?://\S+)?$",
        description="Collector of OpenTelemetry traces, over HTTP, such as http://localhost:4318; empty for none",
    )

    @field_validator("otlp_endpoint")
    @classmethod
    def _installed_telemetry(cls, value: str) -> str:
        if value and not tracing.is_installed():
            raise ValueError("traces need the extra `telemetry`: pip install 'image-predictor[telemetry]'")
        return value

    @field_validator("workers")
    @classmethod
    def _known_workers(cls, value: str) -> str:
        if value != "auto" and not (re.fullmatch(r"\d{1,3}", value) and 1 <= int(value) <= 256):
            raise ValueError(f"{value!r} is no number of workers: use auto, or 1 to 256")
        return value

    @property
    def worker_count(self) -> int | None:
        """How many processes were asked for; None if the service is to find out."""
        return None if self.workers == "auto" else int(self.workers)

    @model_validator(mode="after")
    def _largest_body_fits(self) -> Self:
        if self.max_pending_bytes < self.max_body_bytes:
            raise ValueError(
                f"max_pending_bytes is {self.max_pending_bytes}, less than max_body_bytes, {self.max_body_bytes}: "
                "raise the one or lower the other"
            )
        return self

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """The origins whose pages may call the service."""
        return _split_commas(self.cors_origins)
