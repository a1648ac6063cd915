"""Settings of the coordinator: a TOML file, overridden by HOUSECALL_COORDINATOR_* variables.

Each has a row in docs/settings-coordinator.md (a test holds that).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

CONFIG_VARIABLE = "HOUSECALL_COORDINATOR_CONFIG"
DEFAULT_CONFIG = Path("/etc/housecall/coordinator.toml")


class Settings(BaseSettings):
    """What `housecall-coordinator` can be told."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="HOUSECALL_COORDINATOR_", extra="forbid"
    )

    state_dir: Path = Field(
        default=Path("/var/lib/housecall-coordinator"),
        description="Folder of the CA, the keys and, unless database_url is set, the store.",
    )
    listen: str = Field(
        default="[::]:8443", description="Address and port to listen on, as 127.0.0.1:8443."
    )
    database_url: str = Field(
        default="",
        description="SQLAlchemy URL of the store; empty = SQLite in state_dir.",
    )
    threads: int = Field(default=8, ge=1, description="Threads that serve unary calls.")
    drain_seconds: float = Field(
        default=10.0, ge=0, description="How long running calls may take to end at a stop."
    )
    log_level: str = Field(default="info", description="debug, info, warning or error.")

    @property
    def store_url(self) -> str:
        return self.database_url or f"sqlite:///{self.state_dir / 'coordinator.db'}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        config = Path(os.environ.get(CONFIG_VARIABLE, DEFAULT_CONFIG))
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config)
