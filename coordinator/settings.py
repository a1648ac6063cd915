"""Settings of the coordinator: a TOML file, overridden by HOUSECALL_COORDINATOR_* variables.

Each has a row in docs/settings-coordinator.md (a test holds that).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from housecall import addresses, scraping, tracing
from housecall.service_secrets import credentials

CONFIG_VARIABLE = "HOUSECALL_COORDINATOR_CONFIG"
DATABASE = "coordinator.db"
"""The store in `state_dir`, where there is no `database_url`."""
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
        description="SQLAlchemy URL of the store, as postgresql+psycopg://user:password@host/name; "
        "empty = SQLite in state_dir.",
    )
    threads: int = Field(
        default=8,
        ge=1,
        description="Threads that serve unary calls; as many more serve agents' streams.",
    )
    drain_seconds: float = Field(
        default=10.0, ge=0, description="How long running calls may take to end at a stop."
    )
    keepalive_seconds: float = Field(
        default=30.0,
        ge=1,
        description="How often a quiet connection is pinged; a peer that is gone without a word is "
        "noticed half as long after.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="debug, info, warning or error."
    )
    log_format: Literal["json", "text"] = Field(
        default="json", description="json: one object a line; text: the same for people."
    )
    metrics_listen: str = Field(
        default="",
        description="Where Prometheus scrapes metrics, as 127.0.0.1:9464; empty = nowhere.",
    )
    trace_endpoint: str = Field(
        default="",
        description="Where spans go by OTLP, as https://host:4317; empty = nowhere.",
    )

    archive_dir: Path | None = Field(
        default=None,
        description="Folder, on another disk, to which every entry is written as well before "
        "anyone is answered; none = no archive.",
    )
    check_at_start: bool = Field(
        default=True,
        description="Compare every table with what the ledger makes of it before serving.",
    )
    backup_within_hours: float = Field(
        default=26.0,
        ge=0,
        description="`admin status` warns where the last backup is older; 0 = it never warns.",
    )

    @field_validator("archive_dir", mode="before")
    @classmethod
    def _nowhere(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("archive_dir")
    @classmethod
    def _elsewhere(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value and (not value.is_absolute() or value == info.data.get("state_dir")):
            raise ValueError("expected an absolute path other than state_dir")
        return value

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        addresses.split(value, least_port=0)
        return value

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str) -> str:
        if value:  # a start without one should not wait for it
            from coordinator.store.databases import parse_url

            parse_url(value)
        return value

    @field_validator("metrics_listen")
    @classmethod
    def _metrics(cls, value: str) -> str:
        return scraping.checked(value)

    @field_validator("trace_endpoint")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        return tracing.checked(value)

    @property
    def store_url(self) -> str:
        return self.database_url or f"sqlite:///{self.state_dir / DATABASE}"

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
        file = TomlConfigSettingsSource(settings_cls, config)
        return init_settings, env_settings, *credentials(settings_cls), file
