"""Slots, joining, cancelling; and feeds that late followers can rely on."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from agent.events import KEPT_LINES, Amount, Done, Feed, LogLine
from agent.worker import CANCELLED, SHUTDOWN, Job, Worker
from housecall.errors import Refusal


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(2)
    made.start()
    yield made
    made.close(5)


def test_no_more_run_at_once_than_there_are_slots(worker: Worker) -> None:
    go, inside, most = threading.Event(), [0], [0]
    lock = threading.Lock()

    def work(_: Job) -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        go.wait(5)
        with lock:
            inside[0] -= 1

    jobs = [worker.queue(str(number), work) for number in range(5)]
    go.set()
    for job in jobs:
        job.outcome()
    assert most[0] <= 2


def test_the_same_key_is_the_same_job(worker: Worker) -> None:
    go = threading.Event()
    first = worker.queue("a", lambda _: go.wait(5))
    assert worker.queue("a", lambda _: "never") is first
    go.set()
    assert first.outcome() is True
    assert worker.queue("a", lambda _: "again").outcome() == "again"


def test_what_waits_for_a_slot_is_cancelled_at_once(worker: Worker) -> None:
    go = threading.Event()
    for key in "ab":
        worker.queue(key, lambda _: go.wait(60))
    waiting = worker.queue("c", lambda job: job.stop.check())
    assert worker.cancel(waiting)
    assert waiting.wait(20), "both slots are taken for longer"
    with pytest.raises(Refusal, match="stopped"):
        waiting.outcome()
    assert not worker.cancel(waiting), "it has ended"
    go.set()


def test_closing_stops_what_runs_and_takes_no_more(worker: Worker) -> None:
    job = worker.queue("a", lambda job: job.stop.wait(5))
    worker.close(5)
    assert job.stop.reason == SHUTDOWN
    with pytest.raises(Refusal) as caught:
        worker.queue("b", lambda _: None)
    assert caught.value.code == "AGENT_STOPPING"


def test_an_unexpected_error_is_internal_and_a_full_disk_is_named(worker: Worker) -> None:
    def broken(_: Job) -> None:
        raise KeyError("x")

    def full(_: Job) -> None:
        raise OSError(28, "No space left on device")

    codes = []
    for key, work in (("broken", broken), ("full", full)):
        with pytest.raises(Refusal) as caught:
            worker.spawn(key, work).outcome()
        codes.append(caught.value.code)
    assert codes == ["INTERNAL", "DISK_FULL"]


def test_a_late_follower_hears_the_end_and_the_newest_lines() -> None:
    feed = Feed()
    for number in range(KEPT_LINES + 50):
        feed.emit(LogLine("s", str(number)))
        feed.emit(Amount("data", number, 1000, "bytes"))
    feed.emit(Done("done"))
    feed.close()
    heard = list(feed.follow())
    lines = [event.text for event in heard if isinstance(event, LogLine)]
    assert len(lines) == KEPT_LINES
    assert lines[-1] == str(KEPT_LINES + 49)
    assert heard[-1] == Done("done")
    assert len([event for event in heard if isinstance(event, Amount)]) == 1, "the newest only"


def test_a_follower_that_goes_away_is_forgotten() -> None:
    feed = Feed()
    assert list(feed.follow(lambda: False)) == []
    assert feed._followers == []


def test_what_is_put_off_leaves_its_slot_and_is_done_again() -> None:
    worker, done = Worker(1), []

    def patient(job: Job) -> str:
        done.append("patient")
        if "other" not in done:
            job.put_off(0.01)
        return "done"

    job, other = worker.queue("a", patient), worker.queue("b", lambda _: done.append("other"))
    worker.start()
    assert job.outcome() == "done"
    other.outcome()
    assert done == ["patient", "other", "patient"]
    worker.close(5)


@pytest.mark.parametrize("reason", [CANCELLED, SHUTDOWN])
def test_what_is_put_off_is_stopped_at_once(worker: Worker, reason: str) -> None:
    begun = threading.Event()

    def patient(job: Job) -> None:
        job.stop.check()
        job.put_off(3600)
        begun.set()

    job = worker.queue("a", patient)
    assert begun.wait(5)
    if reason == SHUTDOWN:
        worker.close(5)
    else:
        worker.cancel(job)
    assert job.wait(5)
    assert job.error is not None
    assert job.error.code == "STEP_STOPPED"
    assert worker.find("a") is None


def test_work_that_gets_no_thread_is_refused_and_can_be_asked_for_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        with pytest.raises(Refusal) as refused:
            worker.spawn("a", lambda _: "never")
    assert refused.value.code == "THREADS_EXHAUSTED"
    assert worker.spawn("a", lambda _: "done").outcome() == "done"
