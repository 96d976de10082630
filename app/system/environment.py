"""How settings are read from environment variables, and which variables only look like a setting.

Kubernetes gives every container variables for each Service of its namespace, as Docker's links did. A Service named
`predictor` makes `PREDICTOR_PORT=tcp://10.0.0.1:8000`, which says nothing about this process.

Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any, Final

from pydantic import field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

logger = logging.getLogger("app.settings")

_SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)
_PORT: Final = "PREDICTOR_PORT"


class EnvironmentSettings(BaseSettings):
    """A group of settings that come from arguments, else from variables `PREDICTOR_*`, and cannot change."""

    model_config = SettingsConfigDict(
        env_prefix="PREDICTOR_",
        frozen=True,
        extra="ignore",
        cli_kebab_case=True,
        cli_show_env_vars=True,
        cli_hide_none_type=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns where settings come from, the first one first; pydantic-settings puts the command line before."""
        return init_settings, OwnVariables(settings_cls)

    @field_validator("*")
    @classmethod
    def _in_home_folder(cls, value: Any) -> Any:
        """Expands `~` in a path, as a shell does where the path does not come from a file of variables."""
        return Path(os.path.expanduser(value)) if isinstance(value, Path) else value


class OwnVariables(EnvSettingsSource):
    """Reads settings from environment variables; the variable of a Service, and an empty one, count as not set.

    Args:
        settings_cls: the class of the settings.
    """

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls, env_ignore_empty=True)
        self.env_vars = {name: value for name, value in self.env_vars.items() if not _is_link(name, value)}


def tell_ignored_variables() -> None:
    """Logs a line if a variable is ignored because it describes a Service. Call it once logging is configured."""
    if _is_link(_PORT, value := os.environ.get(_PORT)):
        logger.warning(
            "%s=%s is ignored: it describes a Service, or a linked container, named predictor. "
            "enableServiceLinks: false in the pod keeps such variables away; --port sets the port.",
            _PORT,
            value,
        )


def _is_link(name: str, value: str | None) -> bool:
    return name.upper() == _PORT and _SERVICE_LINK.match(value or "") is not None
