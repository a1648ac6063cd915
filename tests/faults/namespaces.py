"""Network namespaces: an agent on a network of its own, whose wire the kernel can hurt.

A pair of virtual interfaces is the wire, `hcf<n>` here and `eth0` there, on the n-th network of
four addresses in 198.18.0.0/15, which RFC 2544 sets aside for tests. Whoever made the interface
here has that network: harnesses that run at the same time do not meet. A namespace's name holds
the process that made it, so that the next harness removes what a killed one left.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

from examples import apt

NETWORK = ip_network("198.18.0.0/15")
NAMED = Path("/run/netns")
PREFIX = "hcf"
FAR = "eth0"
PACKAGES = {"ip": "iproute2", "tc": "iproute2", "iptables": "iptables"}
TRIES = 5


class Namespace:
    """One network of its own; `near` and `far` are the addresses of its wire's ends."""

    def __init__(self, number: int) -> None:
        self.name = f"{PREFIX}-{os.getpid()}-{number}"
        self.wire = f"{PREFIX}{number}"
        self.near, self.far = (str(NETWORK[4 * number + end]) for end in (1, 2))

    def make(self) -> bool:
        """False where it cannot be, or where another harness has the number."""
        made = (
            run("ip", "netns", "add", self.name)
            and run(
                *("ip", "link", "add", self.wire, "type", "veth"),
                *("peer", "name", FAR, "netns", self.name),
            )
            and run("ip", "address", "add", f"{self.near}/30", "dev", self.wire)
            and run("ip", "link", "set", self.wire, "up")
            and self.run("ip", "address", "add", f"{self.far}/30", "dev", FAR)
            and self.run("ip", "link", "set", "lo", "up")
            and self.run("ip", "link", "set", FAR, "up")
        )
        if not made:
            run("ip", "netns", "delete", self.name)
        return made

    def command(self, words: Sequence[str]) -> list[str]:
        """The same program on this network; `ip netns exec` would hide /sys from it."""
        return ["nsenter", f"--net={NAMED / self.name}", "--", *words]

    def run(self, *words: str) -> bool:
        """Whether a command succeeded on this network."""
        return run(*self.command(words))

    def calm(self) -> None:
        """Nothing is wrong with the wire any more."""
        self.run("iptables", "--flush")
        self.run("tc", "qdisc", "delete", "dev", FAR, "root")
        self.run("ip", "link", "set", FAR, "up")
        run("tc", "qdisc", "delete", "dev", self.wire, "root")
        run("ip", "link", "set", self.wire, "up")

    def close(self) -> None:
        run("ip", "link", "delete", self.wire)
        run("ip", "netns", "delete", self.name)


def make() -> Namespace | None:
    """None where none can be made: without the rights, the kernel's part or the programs."""
    for program, package in PACKAGES.items():
        if shutil.which(program) is None and apt.available():
            with suppress(apt.AptError):
                apt.install(package)
    if not all(map(shutil.which, PACKAGES)):
        return None
    # Not of the run's seed: two runs of one seed must not try the same numbers.
    numbers = random.SystemRandom().sample(range(NETWORK.num_addresses // 4), TRIES)
    return next((made for made in map(Namespace, numbers) if made.make()), None)


def sweep() -> None:
    """What harnesses left that are no more."""
    for file in NAMED.glob(f"{PREFIX}-*-*"):
        _, process, number = file.name.split("-")
        if not Path("/proc", process).exists():
            run("ip", "link", "delete", f"{PREFIX}{number}")
            run("ip", "netns", "delete", file.name)


def run(*words: str) -> bool:
    """Whether a command succeeded."""
    return subprocess.run(words, capture_output=True, check=False).returncode == 0
