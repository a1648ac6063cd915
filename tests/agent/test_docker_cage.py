"""The cage, proven from inside real containers."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from agent.engines.docker import DockerEngine
from agent.engines.docker.cage import check_cage
from agent.engines.port import ENGINE_SOCKETS, Exit, Limits, Mount, StepSpec
from housecall.errors import Refusal
from tests.agent import images

MIB = 2**20
LIMITS = Limits(
    memory_bytes=64 * MIB, cpus=1, pids=24, tmp_bytes=4 * MIB, log_bytes=MIB, shm_bytes=2 * MIB
)
UID = 10001


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerEngine]:
    with closing(DockerEngine(None, allow_pull=False)) as opened:
        yield opened


@pytest.fixture
def spec(engine: DockerEngine) -> Iterator[StepSpec]:
    """A step with a label of its own; whatever it started is removed afterwards."""
    name = f"housecall-test-{uuid.uuid4().hex[:12]}"
    yield StepSpec(
        name=name,
        image_id=images.busybox(),
        mounts=(),
        limits=LIMITS,
        user=f"{UID}:{UID}",
        labels={"housecall.test": name},
    )
    for left in engine.adopt({"housecall.test": name}):
        engine.remove(left.container_id)


Run = Callable[..., tuple[Exit, list[str]]]


@pytest.fixture
def run(engine: DockerEngine, spec: StepSpec) -> Run:
    def run(script: str, **changes: object) -> tuple[Exit, list[str]]:
        step = replace(spec, command=("sh", "-c", script), **changes)  # type: ignore[arg-type]
        container_id = engine.start(step)
        ending = engine.wait(container_id, 20)
        assert ending is not None
        return ending, list(engine.logs(container_id))

    return run


def test_no_privilege_is_left(run: Run) -> None:
    ending, lines = run("cat /proc/self/status; id")
    assert ending == Exit(0, False, "")
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[capabilities], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert status["Uid"].split() == [str(UID)] * 4
    assert lines[-1] == f"uid={UID} gid={UID} groups={UID}"


def test_groups_are_the_ones_the_site_gave(run: Run) -> None:
    _, lines = run("id -G", groups=(20001,))
    assert lines == [f"{UID} 20001"]


def test_no_network_but_loopback(run: Run) -> None:
    _, lines = run("ls /sys/class/net; cat /proc/net/route")
    assert lines[0] == "lo"
    assert not [line for line in lines[1:] if not line.startswith("Iface")]


@pytest.mark.parametrize("path", ["/", "/etc", "/bin", "/proc/sys", "/sys", "/dev"])
def test_nothing_but_tmp_can_be_written(run: Run, path: str) -> None:
    ending, _ = run(f"echo x > {path}/planted")
    assert ending.code != 0


def test_tmp_is_writable_executable_and_bounded(run: Run) -> None:
    script = "cp /bin/busybox /tmp/sh; /tmp/sh -c 'echo $HOME'; stat -c %a /tmp; "
    ending, lines = run(script + "dd if=/dev/zero of=/tmp/full bs=1M count=8 2>&1")
    assert lines[:2] == ["/tmp", "1777"]
    assert any("No space left" in line for line in lines)
    assert ending.code != 0


def test_shared_memory_has_the_size_asked_for(run: Run) -> None:
    ending, _ = run("dd if=/dev/zero of=/dev/shm/x bs=1M count=3")
    assert ending.code != 0


def test_volumes_of_the_image_are_bounded_too(run: Run) -> None:
    image_id = images.derived(["VOLUME /scratch"], "housecall-test/volume")
    ending, lines = run("dd if=/dev/zero of=/scratch/x bs=1M count=8 2>&1", image_id=image_id)
    assert ending.code != 0
    assert any("No space left" in line for line in lines)


def test_memory_is_bounded(run: Run) -> None:
    ending, _ = run("exec dd if=/dev/zero of=/dev/null bs=200M count=1")
    assert (ending.code, ending.oom_killed) == (137, True)


def test_processes_are_bounded(run: Run) -> None:
    ending, lines = run("for i in $(seq 40); do sleep 2 & done 2>&1")
    assert ending.code != 0
    assert any("can't fork" in line for line in lines)


def test_inputs_are_read_only_and_outputs_belong_to_the_step(run: Run, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    for folder in (source, target):
        folder.mkdir()
        os.chown(folder, UID, UID)
    (source / "case").write_text("7")
    mounts = (Mount(source, "/in", read_only=True), Mount(target, "/out", read_only=False))
    ending, _ = run("cat /in/case > /out/case && ! echo x > /in/case", mounts=mounts)
    assert ending.code == 0
    assert (target / "case").read_text() == "7"
    assert (target / "case").stat().st_uid == UID
    assert (source / "case").read_text() == "7"


def test_environment_may_be_chosen_except_for_the_gpus(run: Run) -> None:
    chosen = {"NVIDIA_VISIBLE_DEVICES": "all", "OMP_NUM_THREADS": "7", "LEVEL": "debug"}
    _, lines = run("env", environment=chosen)
    seen = dict(line.split("=", 1) for line in lines)
    assert seen["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert (seen["OMP_NUM_THREADS"], seen["LEVEL"]) == ("7", "debug")
    assert seen["MKL_NUM_THREADS"] == "1"


def test_what_is_not_seen_inside_is_set_too(engine: DockerEngine, spec: StepSpec) -> None:
    container_id = engine.start(replace(spec, command=("sleep", "60")))
    found = images.client().inspect_container(container_id)
    host = found["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["Memory"] == host["MemorySwap"] == LIMITS.memory_bytes
    assert host["NanoCpus"] == 1_000_000_000
    assert (host["IpcMode"], host["Init"], host["Privileged"]) == ("private", True, False)
    assert host["LogConfig"]["Type"] == "local"
    assert host["LogConfig"]["Config"]["max-size"] == str(MIB // 2)
    assert found["Config"]["Labels"] == dict(spec.labels)


@pytest.mark.parametrize("user", ["0:0", "0:1", "1:0", "root", "10001", "00:5", ""])
def test_root_is_refused(spec: StepSpec, user: str) -> None:
    with pytest.raises(Refusal) as refused:
        replace(spec, user=user)
    assert refused.value.message == (
        f"step user: expected a non-root uid:gid, got {user!r}; correct the site's settings"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": (0,)}, "step groups: expected groups other than root's, got '(0,)'"),
        ({"labels": {"x": "y"}}, "step labels: expected names that start with housecall., got 'x'"),
        ({"image_id": "busybox:1"}, "step image_id: expected sha256:<64 hex digits>, got"),
    ],
)
def test_other_ways_out_are_refused(
    spec: StepSpec, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(Refusal) as refused:
        replace(spec, **changes)  # type: ignore[arg-type]
    assert refused.value.message.startswith(message)
    assert refused.value.code == "STEP_REFUSED"


@pytest.mark.parametrize("source", ["/", "/run", "/var/run", "/run/docker.sock"])
def test_the_engines_socket_is_never_mounted(spec: StepSpec, source: str) -> None:
    with pytest.raises(Refusal, match=r"mount at /in: expected ") as refused:
        replace(spec, mounts=(Mount(Path(source), "/in", read_only=True),))
    assert refused.value.code == "STEP_REFUSED"


def test_nor_is_a_socket_elsewhere(spec: StepSpec, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "docker.sock"))
        for source in (tmp_path, folder / "link", tmp_path / "docker.sock"):
            with pytest.raises(Refusal):
                replace(spec, mounts=(Mount(source, "/in", read_only=True),))
    replace(spec, mounts=(Mount(folder, "/in", read_only=True),))
    assert Path("/run/docker.sock") in ENGINE_SOCKETS


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        ({"MemoryLimit": False}, "MemoryLimit"),
        ({"PidsLimit": False}, "PidsLimit"),
        ({"SecurityOptions": ["name=seccomp,profile=unconfined"]}, "a seccomp profile"),
        ({"SecurityOptions": None}, "a seccomp profile"),
    ],
)
def test_an_engine_that_would_ignore_the_cage_is_refused(
    change: dict[str, object], lacks: str
) -> None:
    info = images.client().info()
    check_cage(info)
    with pytest.raises(Refusal) as refused:
        check_cage({**info, **change})
    assert refused.value.message == (
        f"engine: expected limits and seccomp, got one without {lacks}; "
        "run a rootful engine with cgroups and the default seccomp profile"
    )
