"""Every setting of the service, read from options and environment variables, checked at the start and then frozen.

option, else PREDICTOR_* variable, else default -> Settings -> everything that is built from them

Each class but `Settings` is one group. Its docstring is the group's title and text in docs/settings.md, which
docs/generate_settings.py writes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import CliImplicitFlag

from app.images.limits import FORMATS, ImageLimits
from app.store.references import check_names, references
from app.system.cores import usable_cores
from app.system.environment import EnvironmentSettings
from app.system.origins import normal_origin


def _split_commas(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


class StoreSettings(EnvironmentSettings):
    """Model store."""

    model_store: Path = Field(default=Path("model_store"), description="Folder of the published models")


class ModelSettings(StoreSettings):
    """Models, computation and images."""

    model: str = Field(
        default="imagenet",
        pattern=r"\S",
        description="Models to serve, separated by commas. Each is NAME, NAME/VERSION, or the path of a TorchScript "
        "file. The first one is the default model and answers /predict. Two files must not have the same name",
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
        description="Library that computes the probabilities. auto takes the fastest that passes the golden check",
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
        description="Number of batches that are computed at the same time. 0: on a CPU the service measures the best "
        "number; on a GPU it takes 2 for each GPU",
    )
    threads_per_stream: int = Field(
        default=0,
        ge=0,
        le=256,
        description="CPU threads that compute one batch. 0: the service measures the best number, or divides the cores "
        "among the streams if --streams is set",
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
        default=100_000_000,
        ge=1,
        description="Largest number of pixels in an image. The number is read from the image's header, before decoding",
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
        for name in _split_commas(value.upper()):
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
    def image_limits(self) -> ImageLimits:
        """The formats and the size of images that the decoder accepts."""
        switched_on = _split_commas(self.formats)
        return ImageLimits(max_pixels=self.max_pixels, formats=tuple(name for name in FORMATS if name in switched_on))


class HttpSettings(EnvironmentSettings):
    """HTTP, limits and timeouts.

    With several workers, each worker has an equal part of the pending images, pending bytes and connections.
    """

    host: str = Field(default="127.0.0.1", description="Address to listen on. 0.0.0.0 listens on every address")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on. 0: a free port is picked")
    cors_origins: str = Field(
        default="",
        description="Web origins whose pages may call the service, separated by commas, such as https://shop.example. "
        "* allows every origin",
    )
    max_body_bytes: int = Field(default=20_000_000, ge=1, description="Largest size of a request's body, in bytes")
    max_images_per_request: int = Field(
        default=64, ge=1, description="Largest number of images in one request to /predict/batch"
    )
    max_pending_images: int = Field(
        default=128,
        ge=1,
        description="Largest number of images that are admitted and not answered yet. Further images are refused with "
        "503",
    )
    max_pending_bytes: int = Field(
        default=256_000_000,
        ge=1,
        description="Most bytes of request bodies in memory, from their arrival to their answer. Further bodies are "
        "refused with 503",
    )
    max_connections: int = Field(
        default=10_000,
        ge=1,
        description="Largest number of open connections. Beyond it, the longest idle connection is closed",
    )
    min_upload_bytes_per_s: int = Field(
        default=1_000,
        ge=0,
        description="Lowest speed of an upload over every 5 seconds. A slower upload is refused with 408. 0: any speed",
    )
    idle_timeout_s: float = Field(
        default=75.0,
        gt=0,
        description="Seconds until an idle connection is closed. Behind a balancer, this should be more than the "
        "balancer's idle timeout",
    )
    request_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="Most seconds from a request's head to its answer. A client may ask for less in the header "
        "X-Request-Timeout-Ms",
    )

    @field_validator("cors_origins")
    @classmethod
    def _as_browsers_write_them(cls, value: str) -> str:
        return ",".join(normal_origin(origin) for origin in _split_commas(value))

    @model_validator(mode="after")
    def _largest_body_fits(self) -> Self:
        if self.max_pending_bytes < self.max_body_bytes:
            raise ValueError(
                f"max_pending_bytes is {self.max_pending_bytes}, less than max_body_bytes, {self.max_body_bytes}: "
                "raise max_pending_bytes or lower max_body_bytes"
            )
        return self

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """The web origins whose pages may call the service."""
        return _split_commas(self.cors_origins)


class OperationSettings(EnvironmentSettings):
    """Workers, upgrades and shutdown."""

    workers: str = Field(
        default="auto",
        description="Number of processes that serve and share the cores. auto starts several for networks that are "
        "small enough to be faster than Python, else one",
    )
    watch_store_s: float = Field(
        default=5.0,
        ge=0,
        description="Seconds between two looks at the model store for new versions. 0: a look only on a reload request",
    )
    memory_budget_mb: int = Field(
        default=0,
        ge=0,
        description="Most memory, in MB by an estimate, that the models of one worker may take. 0: no bound",
    )
    drain_delay_s: float = Field(
        default=0.0,
        ge=0,
        description="Seconds after SIGTERM in which the service is unready but still answers, so that balancers notice",
    )
    drain_timeout_s: float = Field(
        default=30.0, ge=0, description="Most seconds to finish open requests at a shutdown, after the drain delay"
    )

    @field_validator("workers")
    @classmethod
    def _known_workers(cls, value: str) -> str:
        if value != "auto" and not (re.fullmatch(r"\d{1,3}", value) and 1 <= int(value) <= 256):
            raise ValueError(f"{value!r} is no number of workers: use auto, or 1 to 256")
        return value

    @property
    def worker_count(self) -> int | None:
        """The number of worker processes that was asked for; None if the models decide it."""
        return None if self.workers == "auto" else int(self.workers)


class SecuritySettings(EnvironmentSettings):
    """Keys and TLS."""

    api_keys_file: Path | None = Field(
        default=None,
        description="File of API keys, one `name:sha256` a line, read again when it changes. With it, every request "
        "but a probe needs a key",
    )
    api_keys: str = Field(
        default="",
        description="API keys as `name:sha256`, separated by commas. They are used alone or together with "
        "--api-keys-file",
    )
    admin_keys_file: Path | None = Field(
        default=None,
        description="File of admin keys, one `name:sha256` a line. Without it, models cannot be reloaded, loaded or "
        "unloaded over HTTP",
    )
    metrics_open: CliImplicitFlag[bool] = Field(default=False, description="Serve /metrics without a key")
    tls_cert_file: Path | None = Field(
        default=None, description="PEM file of the server's certificate and its chain. It switches HTTPS on"
    )
    tls_key_file: Path | None = Field(default=None, description="PEM file of the certificate's private key")
    tls_key_password_file: Path | None = Field(
        default=None, description="File that holds the password of an encrypted private key"
    )
    tls_ca_file: Path | None = Field(
        default=None,
        description="PEM file of certificate authorities. With it, a client needs a certificate from one of them",
    )


class LogSettings(EnvironmentSettings):
    """Logs and traces."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest severity that is logged"
    )
    log_format: Literal["console", "json"] = Field(
        default="console",
        description="Form of a log line: console for people, json for programs. json writes one object a line, with "
        "the request's id",
    )
    access_log: CliImplicitFlag[bool] = Field(default=False, description="Log one line for every request")
    otlp_endpoint: str = Field(
        default="",
        pattern=r"^(https?://\S+)?$",
        description="OTLP/HTTP address of an OpenTelemetry collector, such as http://localhost:4318. Without it, no "
        "traces are sent",
    )


# pydantic takes the fields of the last base first.
class Settings(LogSettings, SecuritySettings, OperationSettings, HttpSettings, ModelSettings):
    """Every setting of the service."""
