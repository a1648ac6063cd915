"""GPUs: what the driver reports, and who gets which."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from agent.gpus import Gpu, GpuPool, discover
from housecall.errors import Kind, Refusal


class Nvml:
    """A driver with two GPUs; the second is partitioned into slots, some of them empty."""

    class NVMLError(Exception): ...

    class NVMLError_LibraryNotFound(NVMLError): ...

    class NVMLError_DriverNotLoaded(NVMLError): ...

    class NVMLError_NotSupported(NVMLError): ...

    class NVMLError_NotFound(NVMLError): ...

    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(self, fails: type[Exception] | None = None) -> None:
        self.fails = fails
        self.open = 0

    def nvmlInit(self) -> None:
        if self.fails is not None:
            raise self.fails
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"GPU-{index}"

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:
        if handle == "GPU-0":
            raise self.NVMLError_NotSupported
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:
        return 3

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, index: int) -> str:
        if index == 1:
            raise self.NVMLError_NotFound
        return f"MIG-{index}"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        return type("Memory", (), {"total": 80 * 2**30})

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return handle

    def nvmlDeviceGetName(self, handle: str) -> str:
        return "Example"


A, B, C = (Gpu(name, "Example", 2**34, False) for name in "abc")


def test_discovery_lists_instances_in_place_of_a_partitioned_gpu() -> None:
    nvml = Nvml()
    found = discover(nvml)
    assert [(gpu.uuid, gpu.mig) for gpu in found] == [
        ("GPU-0", False),
        ("MIG-0", True),
        ("MIG-2", True),
    ]
    assert found[0].memory_bytes == 80 * 2**30
    assert nvml.open == 0


@pytest.mark.parametrize(
    "fails", [Nvml.NVMLError_LibraryNotFound, Nvml.NVMLError_DriverNotLoaded, Nvml.NVMLError]
)
def test_no_driver_means_no_gpus(fails: type[Exception]) -> None:
    assert discover(Nvml(fails)) == ()


def test_discovery_on_this_machine_does_not_fail() -> None:
    assert isinstance(discover(), tuple)


@pytest.mark.parametrize(
    ("request_", "given"),
    [
        (None, ()),
        (0, ()),
        (1, ("a",)),
        (2, ("a", "b")),
        ("all", ("a", "b", "c")),
        ("device=2,0", ("c", "a")),
        ("device=b", ("b",)),
        ("device=b,1", ("b",)),
        ("a,c", ("a", "c")),
    ],
)
def test_requests(request_: str | int | None, given: tuple[str, ...]) -> None:
    pool = GpuPool((A, B, C))
    assert pool.take("x", request_) == given
    pool.release("x")
    assert pool.take("y", "all", timeout=0) == ("a", "b", "c")


@pytest.mark.parametrize("request_", [None, 1, 8, "all", "device=0"])
def test_without_gpus_everything_runs_on_the_cpu(request_: str | int | None) -> None:
    assert GpuPool(()).take("x", request_) == ()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (4, "GPUs: expected at most 3, got 4; run at a site that has them"),
        (-1, "GPUs: expected at most 3, got -1; run at a site that has them"),
        (
            "device=0,7",
            "GPUs: expected one of 0, 1, 2, a, b, c, got 7; run at a site that has them",
        ),
        ("device=", "GPUs: expected one of 0, 1, 2, a, b, c, got ; run at a site that has them"),
    ],
)
def test_gpus_that_do_not_exist(request_: str | int, message: str) -> None:
    with pytest.raises(Refusal) as refused:
        GpuPool((A, B, C)).take("x", request_)
    assert refused.value.message == message
    assert (refused.value.code, refused.value.kind) == ("GPU_UNAVAILABLE", Kind.NOT_READY)


def test_a_timeout_gives_up_its_place() -> None:
    pool = GpuPool((A, B))
    pool.take("x", 1)
    with pytest.raises(Refusal) as refused:
        pool.take("y", 2, timeout=0.01)
    assert refused.value.message == (
        "GPUs: expected 2 free within 0.01 s, got 1 of 2; wait or ask for fewer"
    )
    assert (refused.value.code, refused.value.kind) == ("GPU_BUSY", Kind.EXHAUSTED)
    assert pool.take("z", 1, timeout=0) == ("b",)


def test_what_an_earlier_agent_gave_is_not_given_again() -> None:
    pool = GpuPool((A, B))
    pool.hold("execution:1", ("a",))
    assert pool.take("execution:2", 1, timeout=0) == ("b",)
    assert pool.take("execution:1", "all", timeout=0) == ("a",), "what it has is what it gets"
    assert pool.holders() == {"execution:1": ("a",), "execution:2": ("b",)}
    pool.release("execution:1")
    assert pool.take("execution:3", 1, timeout=0) == ("a",)


def test_nobody_overtakes_who_asked_for_more() -> None:
    pool, order = GpuPool((A, B)), []

    def take(name: str, count: int) -> None:
        pool.take(name, count, timeout=10)
        order.append(name)
        pool.release(name)

    pool.take("first", 1)
    threads = []
    for place, (name, count) in enumerate([("large", 2), ("small", 1)]):
        threads.append(threading.Thread(target=take, args=(name, count)))
        threads[-1].start()
        while len(pool._queue) <= place:
            pass
    assert order == []
    pool.release("first")
    for thread in threads:
        thread.join()
    assert order == ["large", "small"]


def test_no_gpu_is_ever_given_twice() -> None:
    pool, used, clashes = GpuPool((A, B, C)), set[str](), []

    def work(owner: str, count: int) -> None:
        for _ in range(100):
            taken = pool.take(owner, count, timeout=30)
            if used & set(taken):
                clashes.append(taken)
            used.update(taken)
            used.difference_update(taken)
            pool.release(owner)

    threads = [
        threading.Thread(target=work, args=(owner, count))
        for owner, count in zip("abcd", (1, 2, 3, 1), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clashes == []
