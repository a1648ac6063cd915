"""A network of its own: what goes through its wire, what does not, and what is left of it."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.faults import namespaces, wires
from tests.faults.namespaces import NAMED, Namespace

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
DIAL = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"


@pytest.fixture
def network() -> Iterator[Namespace]:
    made = namespaces.make()
    if made is None:
        pytest.skip("no network namespaces here")
    yield made
    made.close()


def reaches(network: Namespace, port: int) -> bool:
    return network.run(sys.executable, "-c", DIAL, network.near, str(port))


@needs_root
@pytest.mark.parametrize("trouble", [wires.down, wires.silent, wires.rejecting])
def test_a_wire_that_is_hurt_heals(network: Namespace, trouble: wires.Trouble) -> None:
    with socket.create_server((network.near, 0)) as server:
        port = server.getsockname()[1]
        assert reaches(network, port)
        assert trouble(network, random.Random(1))
        assert not reaches(network, port)
        network.calm()
        assert reaches(network, port)


@needs_root
@pytest.mark.parametrize("trouble", [wires.lossy, wires.spent, wires.slow])
def test_the_kernel_takes_the_other_troubles(network: Namespace, trouble: wires.Trouble) -> None:
    for seed in range(4):
        assert trouble(network, random.Random(seed))
        network.calm()


@needs_root
def test_nothing_is_left(network: Namespace) -> None:
    network.close()
    assert not (NAMED / network.name).exists()
    assert not namespaces.run("ip", "link", "show", network.wire)


@needs_root
def test_what_a_killed_harness_left_is_swept_away(network: Namespace) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = f"hcf-{gone.pid}-99999"
    assert namespaces.run("ip", "netns", "add", left)
    namespaces.sweep()
    assert not (NAMED / left).exists()
    assert (NAMED / network.name).exists()
