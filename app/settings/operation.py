"""The settings of operation: workers, upgrades and shutdown, keys and TLS, logs and traces."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import CliImplicitFlag

from app.system.environment import EnvironmentSettings


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
