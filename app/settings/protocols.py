"""The settings of other servers' protocols: which are spoken, and the ports that only they have."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import CliImplicitFlag

from app.settings.lists import split_commas
from app.settings.platforms import SAGEMAKER_MODELS
from app.system.environment import EnvironmentSettings

PROTOCOLS: Final = ("torchserve", "oip", "kserve", "sagemaker", "vertex", "huggingface", "mlflow")
"""The protocols of other servers that can be spoken besides the service's own."""
_NONE: Final = "none"


class ProtocolSettings(EnvironmentSettings):
    """Protocols of other servers.

    docs/protocols.md says what each is.
    """

    protocols: str = Field(
        default=",".join(PROTOCOLS),
        description="Protocols of other servers that are spoken besides the service's own, separated by commas. none: "
        "only its own",
    )
    management_port: int = Field(
        default=0, ge=0, le=65535, description="Port of TorchServe's management interface, and of nothing else. 0: none"
    )
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="Port of /metrics under TorchServe's names too. 0: none"
    )
    vertex_health_route: str = Field(
        default="", pattern="^(/.*)?$", description="Path that Vertex AI probes; it sets AIP_HEALTH_ROUTE for it"
    )
    vertex_predict_route: str = Field(
        default="", pattern="^(/.*)?$", description="Path that Vertex AI posts to; it sets AIP_PREDICT_ROUTE for it"
    )

    sagemaker_multi_model: CliImplicitFlag[bool] = Field(
        default=False,
        description="Let SageMaker load and unload models below /opt/ml/models. The service starts without a model; "
        "SAGEMAKER_MULTI_MODEL=true sets it",
    )

    sagemaker_models: Path = Field(
        default=SAGEMAKER_MODELS, description="Folder below which SageMaker puts the models of such an endpoint"
    )

    @field_validator("protocols")
    @classmethod
    def _are_known(cls, value: str) -> str:
        names = () if value.strip() == _NONE else split_commas(value.lower())
        unknown = [name for name in names if name not in PROTOCOLS]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not a protocol that is spoken here: {', '.join(PROTOCOLS)}, or none")
        return ",".join(dict.fromkeys(names))

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.management_port and self.management_port == self.metrics_port:
            raise ValueError("management_port and metrics_port must differ")
        return self

    @property
    def spoken_protocols(self) -> tuple[str, ...]:
        """The names of the protocols that are spoken."""
        return split_commas(self.protocols)
