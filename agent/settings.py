"""The agent's settings: a TOML file, overridden by the environment (`HOUSECALL_AGENT_<NAME>`).

Every field's docstring is its help text; `docs/settings-agent.md` has a row for each.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from agent.disclosure import Consent
from agent.fetching import Outward
from housecall import scraping, tracing
from housecall.errors import Kind, Refusal
from housecall.proxy import parse
from housecall.service_secrets import credentials
from housecall.setting_errors import masked, refusal_for, require_file
from housecall.setting_names import require_known_variables

DEFAULT_FILE = Path("/etc/housecall/agent.toml")
PREFIX = "HOUSECALL_AGENT_"
CONFIG_VARIABLE = "HOUSECALL_AGENT_CONFIG"
PAGE = "docs/settings-agent.md"


class ProxyUrl(SecretStr):
    """Shown without its password."""

    def _display(self) -> str:
        return masked(self.get_secret_value())

    def __str__(self) -> str:
        return self._display()


class Settings(BaseSettings):
    """What a site decides about its agent."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    state_dir: Path = Path("/var/lib/housecall-agent")
    """Identity, journal, datasets and executions; 0700."""
    join_token: SecretStr = SecretStr("")
    """Join token that `serve` enrols with where there is no identity yet; best as a credential."""
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
    report_preparations: Consent = "off"
    """What others are told of a preparation: off, nothing; steps, its state and step; shares, cases by status in percent too."""  # noqa: E501 - a help text
    max_output_bytes: int = Field(64 * 1024, ge=1024, le=512 * 1024)
    """Largest statistics or metrics file that is accepted."""
    disk_reserve_bytes: int = Field(1 << 30, ge=0)
    """Free disk space below which no step is started."""
    heartbeat_s: float = Field(30, gt=0)
    """Seconds between heartbeats to the coordinator."""
    max_clock_skew_s: float = Field(300, gt=0)
    """Difference to the coordinator's clock that is reported as CLOCK_SKEW."""
    proxy: ProxyUrl = ProxyUrl("")
    """HTTP proxy to the coordinator and to additional files, http://[user[:password]@]host:port; empty = HTTPS_PROXY, HTTP_PROXY."""  # noqa: E501 - a help text
    proxy_password_file: Path | None = None
    """File with the password of the proxy's user."""
    ca_file: Path | None = None
    """CAs (PEM) that https sources of additional files may have, besides the system's."""
    allow_private_sources: bool = False
    """Fetch additional files from loopback, private and link-local addresses too."""
    stop_grace_s: int = Field(10, ge=0)
    """Seconds that a container gets when a person or a limit stops it."""
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")
    """How much the agent logs."""
    log_format: Literal["json", "text"] = "json"
    """json: one object a line; text: the same for people."""
    metrics_listen: str = ""
    """Where Prometheus scrapes metrics, as 127.0.0.1:9465; empty = nowhere."""
    trace_endpoint: str = ""
    """Where spans go by OTLP, as https://host:4317; empty = nowhere."""
    container_log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR|CRITICAL)$")
    """MEDPERF_LOGLEVEL, as containers see it."""

    @field_validator("metrics_listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        return scraping.checked(value)

    @field_validator("trace_endpoint")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        return tracing.checked(value)

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
        file = TomlConfigSettingsSource(settings_cls)
        return init_settings, env_settings, *credentials(settings_cls), file

    @property
    def user(self) -> str:
        """uid:gid of containers, never root."""
        if self.container_user:
            return self.container_user
        return f"{os.getuid()}:{os.getgid()}" if os.getuid() else "10001:10001"

    @property
    def identity_dir(self) -> Path:
        return self.state_dir / "identity"

    def outward(self) -> Outward:
        """How this site reaches the coordinator and fetches; refuses what cannot work."""
        url, secret, ca_file = self.proxy.get_secret_value(), "", self.ca_file
        try:
            if self.proxy_password_file is not None:
                secret = self.proxy_password_file.read_text().strip("\r\n")
        except OSError as error:
            raise _invalid(f"setting proxy_password_file: {error}") from error
        outward = Outward(parse(url, secret) if url else None, ca_file, self.allow_private_sources)
        try:
            outward.tls()
        except OSError as error:
            text = f"setting ca_file: expected certificates in PEM in {ca_file}, got {error}"
            raise _invalid(text) from error
        return outward


def load(file: Path | None) -> Settings:
    """Settings of `file` (else the default one if it is there) and of the environment. Raises
    Refusal CONFIG_MISSING or SETTINGS_INVALID, whose last clause says what to do."""
    if file is not None:
        require_file(file)
    require_known_variables(Settings, PAGE, CONFIG_VARIABLE)
    chosen = file or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=chosen)

    try:
        return FromFile()
    except ValueError as error:
        raise refusal_for(error, Settings, PAGE, chosen) from error


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
