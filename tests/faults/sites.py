"""A site: its small disk, its network, its data, its agent, and calls over the agent's socket."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc

from housecall import client
from housecall.errors import Refusal
from housecall.identity import Identity
from housecall.rpc import refusals
from housecall.v1 import site_pb2, site_pb2_grpc
from housecall.v1 import statements_pb2 as pb
from tests.faults import images
from tests.faults.clocks import WallClock
from tests.faults.disks import Disk
from tests.faults.namespaces import Namespace
from tests.faults.programs import Keeper, Program
from tests.faults.proxy import Link

ROOT = Path(__file__).resolve().parents[2]
CALL_S = 20.0
POLICY = """rules:
  - name: standing
    benchmark: 1
    run: allow
    release: {release}
"""


class Site:
    """One site, before its agent was started."""

    def __init__(
        self,
        name: str,
        folder: Path,
        sockets: Path,
        *,
        link: Link,
        network: Namespace | None,
        clock: WallClock,
    ) -> None:
        self.name, self.folder = name, folder
        self.link, self.network, self.clock = link, network, clock
        folder.mkdir(parents=True)
        self.disk = Disk(folder / "disk", 96)
        self.state = self.disk.path / "state"
        self.socket = sockets / f"{name}.sock"
        self.policy = folder / "policy.yaml"
        self.trap = folder.parent / "boundaries" / "agents" / name
        self.journal = self.state / "journal.sqlite"
        self.allow(release=True)

    def allow(self, *, release: bool) -> None:
        """The standing policy: models run, and results leave or wait for a person."""
        fresh = self.policy.with_suffix(".new")
        fresh.write_text(POLICY.format(release="allow" if release else "ask"))
        fresh.replace(self.policy)

    def write_data(self, number: int, choice: random.Random) -> Path:
        """Raw data of a dataset that nobody else has."""
        raw = self.folder / "raw" / str(number)
        for part in ("data", "labels"):
            (raw / part).mkdir(parents=True)
            for case in range(images.CASES):
                text = f"{self.name} {number} {part} {case} {choice.random()}\n"
                (raw / part / f"{case}.txt").write_text(text)
        return raw

    def enrol(self, token: str) -> None:
        """The identity dials this site's own link."""
        identity = client.enrol(token, self.state / "identity", pb.ROLE_SITE)
        dialled = dataclasses.replace(identity, address=self.link.address)
        dialled.save(self.state / "identity")

    def make_agent(self, keeper: Keeper, engine: str) -> None:
        config = self.folder / "agent.toml"
        config.write_text(
            f'state_dir = "{self.state}"\nsocket = "{self.socket}"\n'
            f'allowed_paths = ["{self.folder / "raw"}"]\npolicy_file = "{self.policy}"\n'
            f'engine = "{engine}"\nallow_pull = false\nallow_local_files = true\n'
            "disk_reserve_bytes = 1048576\nmemory_limit = 134217728\ntmp_bytes = 4194304\n"
            "cpus = 1.0\nheartbeat_s = 2.0\nstop_grace_s = 1\nslots = 2\n"
        )
        command = [sys.executable, "-m", "tests.faults.launch", "agent", "serve"]
        command += ["--config", str(config)]
        self.trap.parent.mkdir(parents=True, exist_ok=True)
        extra = {"FAULTS_BOUNDARY": str(self.trap), "NO_PROXY": "*"}
        self.program = keeper.add(
            Program(
                self.name,
                self.network.command(command) if self.network else command,
                self.folder / f"{self.name}.log",
                environment={**self.clock.environment, **extra},
                directory=ROOT,
            )
        )

    def close(self) -> None:
        self.disk.copy_out(self.folder / "kept")
        self.disk.close()

    @property
    def identity(self) -> Identity:
        return Identity.load(self.state / "identity")

    @contextlib.contextmanager
    def api(self) -> Iterator[site_pb2_grpc.SiteApiStub]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"unix:{self.socket}", options) as channel, refusals("agent"):
            yield site_pb2_grpc.SiteApiStub(channel)

    def status(self) -> site_pb2.GetStatusResponse:
        with self.api() as api:
            return api.GetStatus(site_pb2.GetStatusRequest(), timeout=CALL_S)

    def connected(self) -> bool:
        with contextlib.suppress(Refusal, grpc.RpcError):
            return self.status().connected
        return False

    def datasets(self) -> list[site_pb2.LocalDataset]:
        with self.api() as api:
            request = site_pb2.ListLocalDatasetsRequest()
            return list(api.ListLocalDatasets(request, timeout=CALL_S).datasets)

    def reviews(self) -> list[site_pb2.Review]:
        with self.api() as api:
            return list(api.ListReviews(site_pb2.ListReviewsRequest(), timeout=CALL_S).reviews)
