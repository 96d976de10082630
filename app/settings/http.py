"""The settings of HTTP: the address, and the limits of requests and connections."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from app.settings.lists import split_commas
from app.system.environment import EnvironmentSettings
from app.system.origins import normal_origin


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
    cors_headers: str = Field(
        default="",
        pattern=r"^[-!#$%&'*+.^_`|~0-9A-Za-z, ]*$",
        description="Request headers that pages of these origins may send besides those that the service reads and "
        "those of tracing, separated by commas. * allows every header",
    )
    max_body_bytes: int = Field(default=50_000_000, ge=1, description="Largest size of a request's body, in bytes")
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
        description="Lowest speed of an upload over every 5 seconds, and of reading a long answer over every 15. A "
        "slower upload is refused with 408, a slower reader is disconnected. 0: any speed",
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
        description="Most seconds from the end of a request's body to its answer. A client asks for less by the header "
        "X-Request-Timeout-Ms",
    )

    @field_validator("cors_origins")
    @classmethod
    def _as_browsers_write_them(cls, value: str) -> str:
        return ",".join(normal_origin(origin) for origin in split_commas(value))

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
        return split_commas(self.cors_origins)

    @property
    def allowed_headers(self) -> tuple[str, ...]:
        """The request headers that were named for these pages, besides those that are allowed anyway."""
        return split_commas(self.cors_headers)
