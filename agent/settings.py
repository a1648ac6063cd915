"""The agent's settings: a TOML file, overridden by the environment (`HOUSECALL_AGENT_<NAME>`).

Every field's docstring is its help text; `docs/settings-agent.md` has a row for each.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from housecall.errors import Kind, Refusal

DEFAULT_FILE = Path("/etc/housecall/agent.toml")
PREFIX = "HOUSECALL_AGENT_"


class Settings(BaseSettings):
    """What a site decides about its agent."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    state_dir: Path = Path("/var/lib/housecall-agent")
    """Identity, journal, datasets and executions; 0700."""
    socket: Path = Path("/run/housecall-agent/agent.sock")
    """Unix socket of the local API; 0660 in a 0750 folder."""
    socket_group: str = ""
    """Group that may use the socket; empty = the agent's own."""
    allowed_paths: Annotated[list[Path], NoDecode] = []
    """Folders that datasets may lie in; in the environment separated by colons. Empty = none."""
    policy_file: Path | None = None
    """Standing policy (YAML or TOML); none = every order waits for a person."""
    slots: int = Field(2, ge=1, le=64)
    """Executions and preparations that run at once."""
    engine: str = ""
    """URL of a Docker-compatible engine; empty = DOCKER_HOST or the default socket."""
    allow_pull: bool = True
    """Fetch images that are not at the site; they are always checked by digest."""
    allow_local_files: bool = False
    """Let additional files and image archives come from paths at the site, not only by http(s)."""
    container_user: str = Field("", pattern=r"^([1-9][0-9]*:[1-9][0-9]*)?$")
    """uid:gid that containers run as; empty = the agent's own, or 10001:10001 for root."""
    memory_limit: int = Field(0, ge=0)
    """Bytes of memory a step may use; 0 = an equal share of the engine's for each slot."""
    cpus: float = Field(0, ge=0)
    """CPUs a step may use; 0 = an equal share of the engine's for each slot."""
    pids: int = Field(1024, ge=16)
    """Processes and threads a step may have."""
    tmp_bytes: int = Field(1 << 30, ge=1 << 20)
    """Size of a step's /tmp; counts against its memory."""
    shm_bytes: int = Field(2 << 30, ge=0)
    """Most shared memory that a container may ask for."""
    wall_limit_s: int = Field(7 * 86400, ge=1)
    """Longest a step may run, whatever the benchmark says."""
    silence_limit_s: int = Field(6 * 3600, ge=1)
    """Longest a step may go without a line of output, whatever the benchmark says."""
    minimum_count: int = Field(0, ge=0)
    """Counts below this are suppressed even where the benchmark allows them."""
    max_output_bytes: int = Field(64 * 1024, ge=1024, le=512 * 1024)
    """Largest statistics or metrics file that is accepted."""
    disk_reserve_bytes: int = Field(1 << 30, ge=0)
    """Free disk space below which no step is started."""
    heartbeat_s: float = Field(30, gt=0)
    """Seconds between heartbeats to the coordinator."""
    max_clock_skew_s: float = Field(300, gt=0)
    """Difference to the coordinator's clock that is reported as CLOCK_SKEW."""
    stop_grace_s: int = Field(10, ge=0)
    """Seconds that running containers get when the agent or a person stops them."""
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")
    """How much the agent logs."""
    container_log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR|CRITICAL)$")
    """MEDPERF_LOGLEVEL, as containers see it."""

    @field_validator("allowed_paths", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part for part in value.split(":") if part] if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def user(self) -> str:
        """uid:gid of containers, never root."""
        if self.container_user:
            return self.container_user
        return f"{os.getuid()}:{os.getgid()}" if os.getuid() else "10001:10001"

    @property
    def identity_dir(self) -> Path:
        return self.state_dir / "identity"


def load(file: Path | None) -> Settings:
    """Settings of `file` (else the default one if it is there) and of the environment."""
    if file is not None and not file.is_file():
        raise _invalid(f"settings file {file}: expected a file, found none; check --config")
    chosen = file or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=chosen)

    try:
        return FromFile()
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise _invalid(
            f"setting {name} (or {PREFIX}{name.upper()}): {first['msg']}, got {first['input']!r}; "
            "see docs/settings-agent.md"
        ) from error
    except ValueError as error:
        raise _invalid(f"settings file {chosen}: expected TOML, got {error}") from error


def listing() -> list[tuple[str, str, str, str]]:
    """(name, environment variable, default, help) of every setting."""
    return [
        (name, PREFIX + name.upper(), _shown(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def _shown(value: object) -> str:
    return "" if value in (None, "", []) else str(value)


def _invalid(message: str) -> Refusal:
    return Refusal(Kind.INVALID, "SETTINGS_INVALID", message)
