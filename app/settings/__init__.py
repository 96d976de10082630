"""Every setting of the service, read from options and environment variables, checked at the start and then frozen.

models.py -> the models, the computation and images
protocols.py -> other servers' protocols, and their ports
http.py -> the address, and the limits of requests and connections
operation.py -> workers, upgrades and shutdown, keys and TLS, logs and traces
platforms.py -> defaults that a platform or an image sets
lists.py -> a list that is one option

option, else PREDICTOR_* variable, else default -> Settings -> everything that is built from them

Each class but `Settings` is one group. Its docstring is the group's title and text in docs/settings.md, which
docs/generate_settings.py writes.

May import `images`, `store` and `system` only.
"""

from app.settings.http import HttpSettings
from app.settings.models import ModelSettings, StoreSettings
from app.settings.operation import LogSettings, OperationSettings, SecuritySettings
from app.settings.protocols import ProtocolSettings

__all__ = ["ModelSettings", "Settings", "StoreSettings"]


# pydantic takes the fields of the last base first.
class Settings(LogSettings, SecuritySettings, OperationSettings, ProtocolSettings, HttpSettings, ModelSettings):
    """Every setting of the service."""

    @property
    def model_references(self) -> tuple[str, ...]:
        """The references of the models to serve from the start; none where SageMaker chooses them later."""
        return () if self.sagemaker_multi_model else super().model_references
