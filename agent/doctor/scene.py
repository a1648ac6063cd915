"""What the checks look at, each thing looked up once: settings, identity, engine, way out."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from agent.doctor.finding import Skip
from agent.engines.docker.diagnosis import Diagnosis, diagnose
from agent.settings import Settings, load
from housecall import addresses
from housecall.credentials import damaged
from housecall.errors import Refusal
from housecall.identity import Identity
from housecall.proxy import Proxy, is_set
from housecall.v1 import registry_pb2


@dataclass(frozen=True)
class Address:
    """A host and a port, as `coordinator.example.org:8443` or `[::1]:8443`."""

    host: str
    port: int

    @staticmethod
    def read(text: str) -> Address:
        """Raises ValueError."""
        return Address(*addresses.split(text))

    @property
    def is_literal(self) -> bool:
        """Written as numbers: there is no name to resolve."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Scene:
    """One examination's view of the machine. `config` is the settings' file, where one is given.
    What cannot be looked up raises `Refusal`, again each time."""

    def __init__(self, config: Path | None) -> None:
        self.config = config
        self.caller: registry_pb2.GetCallerResponse | None = None
        """What the coordinator answered, between these two moments of this machine's clock."""
        self.asked_at = self.answered_at = datetime.now(UTC)

    @cached_property
    def settings(self) -> Settings:
        return load(self.config)

    @cached_property
    def identity(self) -> Identity:
        return Identity.load(self.settings.identity_dir, self.settings.outward().proxy)

    @cached_property
    def engine(self) -> Diagnosis:
        return diagnose(self.settings.engine or None)

    @property
    def coordinator(self) -> Address:
        """Where the coordinator is, as the identity says; skips where there is no identity. Refuses
        an address that is none."""
        try:
            address = self.identity.address
        except (Refusal, OSError):
            raise Skip("no identity says where the coordinator is") from None
        try:
            return Address.read(address)
        except ValueError as error:
            raise damaged(self.settings.identity_dir, ValueError(f"address: {error}")) from None

    @property
    def proxy(self) -> Proxy | None:
        """On the way to the coordinator; the settings' or the environment's."""
        return self.identity.proxy

    @property
    def has_proxy_set(self) -> bool:
        """Also where it is not on the way to this address."""
        return is_set(self.settings.outward().proxy)
