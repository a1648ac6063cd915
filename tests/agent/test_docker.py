"""The Docker engine as a port: life of a step, its logs, and failures."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from agent.engines.docker import DockerEngine
from agent.engines.docker.failures import refusal
from agent.engines.docker.lines import lines
from agent.engines.docker.processes import may_run, waits
from agent.engines.port import MAX_LOG_LINE_BYTES, Exit, Limits, Mount, StepSpec
from housecall.errors import Kind, Refusal
from tests.agent import images
from tests.agent.site import wait_for

LIMITS = Limits(memory_bytes=2**26, cpus=1, pids=32, tmp_bytes=2**22, log_bytes=2**20)
NOWHERE = "sha256:" + "f" * 64


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerEngine]:
    with closing(DockerEngine(None, allow_pull=True)) as opened:
        yield opened


@pytest.fixture
def spec(engine: DockerEngine) -> Iterator[StepSpec]:
    name = f"housecall-test-{uuid.uuid4().hex[:12]}"
    labels = {"housecall.test": name, "housecall.step": "infer"}
    yield StepSpec(name, images.busybox(), (), LIMITS, "10001:10001", labels)
    for left in engine.adopt({"housecall.test": name}):
        engine.remove(left.container_id)


def left_behind(spec: StepSpec) -> list[object]:
    found: list[object] = images.client().containers(all=True, filters={"name": spec.name})
    return found


def test_facts(engine: DockerEngine) -> None:
    facts = engine.facts()
    assert (facts.kind, facts.runtime) == ("docker", "runc")
    assert facts.cpus >= 1
    assert facts.memory_bytes > 2**28
    assert facts.cgroup_version in ("1", "2")


def test_a_step_is_adopted_after_its_handle_is_lost(engine: DockerEngine, spec: StepSpec) -> None:
    engine.start(replace(spec, command=("sh", "-c", "echo on; sleep 0.4; exit 3")))
    other = DockerEngine("unix:///var/run/docker.sock", allow_pull=False)
    (found,) = other.adopt({"housecall.test": spec.name})
    assert (found.name, found.state) == (spec.name, "running")
    assert found.labels["housecall.step"] == "infer"
    assert other.wait(found.container_id, 0) is None
    assert other.wait(found.container_id, 0.05) is None
    assert other.wait(found.container_id, 10) == Exit(3, False, "")
    assert list(other.logs(found.container_id)) == ["on"]
    other.remove(found.container_id)
    assert other.adopt({"housecall.test": spec.name}) == []


def test_others_containers_are_never_adopted(engine: DockerEngine) -> None:
    assert engine.adopt({"housecall.test": "nobody"}) == []
    with pytest.raises(ValueError, match="at least one label"):
        engine.adopt({})


def test_logs_are_followed_while_it_runs(engine: DockerEngine, spec: StepSpec) -> None:
    script = "echo one; echo two >&2; sleep 1; echo; printf 'three\\r\\n\\377four\\n'"
    container_id = engine.start(replace(spec, command=("sh", "-c", script)))
    follow = engine.logs(container_id)
    assert {next(follow), next(follow)} == {"one", "two"}
    assert engine.wait(container_id, 0) is None
    assert list(follow) == ["", "three", "�four"]


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([], []),
        ([b"a\nb", b"c\n\nd"], ["a", "bc", "", "d"]),
        ([b"x" * 5000, b"y\nz\n"], ["x" * 4096, "x" * 904 + "y", "z"]),
        ([b"x" * 4096, b"\n"], ["x" * 4096, ""]),
        ([b"x" * 9000 + b"\n"], ["x" * 4096, "x" * 4096, "x" * 808]),
    ],
)
def test_lines_are_bounded(chunks: list[bytes], expected: list[str]) -> None:
    assert MAX_LOG_LINE_BYTES == 4096
    assert list(lines(chunks)) == expected


def test_stop_gives_the_grace_and_no_more(engine: DockerEngine, spec: StepSpec) -> None:
    script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done"
    polite = engine.start(replace(spec, command=("sh", "-c", script)))
    assert next(engine.logs(polite)) == "up"
    engine.stop(polite, 5)
    assert engine.wait(polite, 5) == Exit(5, False, "", own=False)
    deaf = "trap '' TERM; echo up; while :; do sleep 0.05; done"
    stubborn = engine.start(replace(spec, name=spec.name + "-2", command=("sh", "-c", deaf)))
    assert next(engine.logs(stubborn)) == "up"
    begun = time.monotonic()
    engine.stop(stubborn, 1)
    assert 0.9 < time.monotonic() - begun < 4
    assert engine.wait(stubborn, 5) == Exit(137, False, "", own=False)


def test_what_is_gone(engine: DockerEngine) -> None:
    engine.stop(NOWHERE[7:], 1)
    engine.remove(NOWHERE[7:])
    for call in (lambda: engine.wait(NOWHERE[7:], 1), lambda: list(engine.logs(NOWHERE[7:]))):
        with pytest.raises(Refusal) as refused:
            call()
        assert refused.value.message == (
            "container ffffffffffff: expected it at the engine, got nothing; run it again"
        )
        assert refused.value.code == "STEP_NOT_FOUND"


def test_a_main_process_that_kills_itself_did_not_succeed(
    engine: DockerEngine, spec: StepSpec
) -> None:
    container_id = engine.start(replace(spec, command=("sh", "-c", "kill -9 $$")))
    assert engine.wait(container_id, 5) == Exit(137, False, "")


def test_the_images_own_command_and_a_cleared_entrypoint(
    engine: DockerEngine, spec: StepSpec
) -> None:
    changes = ['ENTRYPOINT ["echo", "own"]', 'CMD ["default"]']
    image_id = images.derived(changes, "housecall-test/entrypoint")
    wanted = {
        "default": replace(spec, image_id=image_id),
        "given": replace(spec, image_id=image_id, command=("given",)),
        "cleared": replace(spec, image_id=image_id, entrypoint=(), command=("echo", "cleared")),
        "other": replace(spec, image_id=image_id, entrypoint=("echo", "other")),
    }
    seen = {}
    for name, step in wanted.items():
        container_id = engine.start(replace(step, name=f"{spec.name}-{name}"))
        seen[name] = list(engine.logs(container_id))
    assert seen == {
        "default": ["own default"],
        "given": ["own given"],
        "cleared": ["cleared"],
        "other": ["other"],
    }


def test_a_failed_start_leaves_nothing(engine: DockerEngine, spec: StepSpec) -> None:
    file_over_folder = (Mount(Path(__file__), "/in", read_only=True),)
    with pytest.raises(Refusal, match=f"engine could not start {spec.name}: ") as refused:
        engine.start(replace(spec, command=("true",), mounts=file_over_folder))
    assert (refused.value.code, refused.value.kind) == ("STEP_START_FAILED", Kind.UNAVAILABLE)
    assert left_behind(spec) == []


def test_a_program_that_is_not_there(engine: DockerEngine, spec: StepSpec) -> None:
    container_id = engine.start(replace(spec, command=("/no/such/program",)))
    assert engine.wait(container_id, 5) == Exit(127, False, "")
    assert "No such file" in " ".join(engine.logs(container_id))


def test_a_gpu_that_nobody_can_hand_out(engine: DockerEngine, spec: StepSpec) -> None:
    with pytest.raises(Refusal) as refused:
        engine.start(replace(spec, command=("true",), gpus=("GPU-0",)))
    assert refused.value.code == "GPU_UNAVAILABLE"
    assert "install the NVIDIA container toolkit or run without GPUs" in refused.value.message
    assert left_behind(spec) == []


def test_an_unknown_image_does_not_start(engine: DockerEngine, spec: StepSpec) -> None:
    with pytest.raises(Refusal) as refused:
        engine.start(replace(spec, image_id=NOWHERE))
    assert (refused.value.code, refused.value.kind) == ("IMAGE_NOT_FOUND", Kind.NOT_FOUND)
    assert left_behind(spec) == []


def test_a_created_container_is_no_success(engine: DockerEngine, spec: StepSpec) -> None:
    client = images.client()
    created = client.create_container(spec.image_id, "true", name=spec.name, labels=spec.labels)
    assert engine.wait(created["Id"], 1) == Exit(-1, False, "the container was never started")


def test_a_mount_that_vanished(engine: DockerEngine, spec: StepSpec, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    step = replace(spec, mounts=(Mount(folder, "/in", read_only=True),))
    folder.rmdir()
    with pytest.raises(Refusal, match="mount at /in: expected an existing folder or file"):
        engine.start(step)
    assert not folder.exists()


def test_an_engine_that_does_not_answer(spec: StepSpec, tmp_path: Path) -> None:
    engine = DockerEngine(f"unix://{tmp_path}/no.sock", allow_pull=True)
    for call in (
        engine.facts,
        lambda: engine.start(spec),
        lambda: engine.wait("x", 1),
        lambda: list(engine.logs("x")),
        lambda: engine.stop("x", 1),
        lambda: engine.remove("x"),
        lambda: engine.adopt(spec.labels),
        lambda: engine.find_image(images.TAG, NOWHERE),
    ):
        with pytest.raises(Refusal) as refused:
            call()
        assert (refused.value.code, refused.value.kind) == ("ENGINE_UNREACHABLE", Kind.UNAVAILABLE)


def test_what_runs_is_known_by_the_kernel(engine: DockerEngine, spec: StepSpec) -> None:
    socket = Path("/var/run/docker.sock")
    container_id = engine.start(replace(spec, command=("sleep", "20")))
    assert may_run(container_id, socket)
    engine.stop(container_id, 0)
    assert not may_run(container_id, socket)
    assert may_run(container_id, None), "an engine elsewhere: who knows"
    assert may_run(container_id, Path("/no/such/socket"))


def test_a_process_that_waits_for_its_start_has_not_begun() -> None:
    named = "printf 'runc:[2:INIT]' > /proc/$$/comm; read line"
    with subprocess.Popen(["sh", "-c", named], stdin=subprocess.PIPE) as process:
        wait_for(lambda: waits(Path(f"/proc/{process.pid}")))
    assert not waits(Path("/proc/self"))


@pytest.mark.parametrize("words", ["id already in use", "task 44e4: already exists"])
def test_what_a_killed_engine_left_is_to_be_looked_for(words: str) -> None:
    assert refusal("STEP_START_FAILED", words).code == "STEP_EXISTS"


def test_a_created_container_is_started_once(engine: DockerEngine, spec: StepSpec) -> None:
    created = images.client().create_container(
        spec.image_id, command=["sleep", "20"], name=spec.name, labels=dict(spec.labels)
    )["Id"]
    (found,) = engine.adopt({"housecall.test": spec.name})
    assert found.state == "created"
    engine.start_created(created)
    engine.start_created(created)
    (found,) = engine.adopt({"housecall.test": spec.name})
    assert found.state == "running"
    with pytest.raises(Refusal) as refused:
        engine.start(replace(spec, command=("sleep", "20")))
    assert refused.value.code == "STEP_EXISTS"
    engine.remove(created)
    with pytest.raises(Refusal) as refused:
        engine.start_created(created)
    assert refused.value.code == "STEP_NOT_FOUND"
