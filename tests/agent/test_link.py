"""The link's duties, against a coordinator that keeps its own and one that does not."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

import agent.outbox
import agent.session
from agent.backoff import (
    BASE_S,
    CALM,
    CALM_WAIT_S,
    CAP_S,
    FINAL,
    FINAL_WAIT_S,
    GOOD_S,
    PASSES,
    SOON,
    Backoff,
)
from agent.clock import Clock
from agent.local.forward import Forward
from agent.server import Agent
from agent.settings import Settings
from coordinator import authority
from housecall import statement
from housecall.errors import Kind, Refusal
from housecall.times import stamp
from housecall.v1 import fleet_pb2, ledger_pb2, registry_pb2, site_pb2, site_pb2_grpc
from housecall.v1 import statements_pb2 as pb
from tests.agent import site
from tests.agent.double import Double, double, point_at
from tests.agent.site import SECONDS, Bench, Site, wait_for
from tests.agent.test_cut_off import full_once
from tests.clocks import ahead


def checkpoint(bench: Bench) -> str:
    stub = site.bench_ledger(bench)
    return stub.GetCheckpoint(ledger_pb2.GetCheckpointRequest()).checkpoint


def welcome(bench: Bench, agent: Agent, **fields: object) -> fleet_pb2.Welcome:
    """An honest one, but for `fields`."""
    seen = agent.journal.fact("checkpoint")
    request = ledger_pb2.GetConsistencyProofRequest(
        old_size=int(seen.split("\n")[1]) if seen else 0
    )
    answer = site.bench_ledger(bench).GetConsistencyProof(request)
    values: dict[str, object] = {
        "coordinator_time": stamp(datetime.now(UTC)),
        "checkpoint": answer.checkpoint,
        "consistency_proof": answer.proof if seen else [],
    }
    return fleet_pb2.Welcome(**values | fields)  # type: ignore[arg-type]


@contextlib.contextmanager
def at_double(bench: Bench, settings: Settings) -> Iterator[tuple[Double, Agent]]:
    """The agent with its link at a double that it said Hello to."""
    with double(bench.world) as made:
        point_at(settings, made.address)
        with Agent(settings, lambda _: bench.engine) as agent:
            made.wait_said("hello")
            yield made, agent
    point_at(settings, bench.world.house.address)


def registered_offline(agent: Agent, settings: Settings, tmp_path: Path) -> bytes:
    """Something signed in the outbox; returns the envelope."""
    said = pb.AssociationWithdrawn(association_id=1, reason="no more")
    from agent.release import Item

    agent.releases.send(Item(said, {"x": statement.digest(b"")}, "withdrawal:1", "north/1"), {})
    return agent.journal.waiting()[0].envelope


def test_the_outbox_survives_a_restart_and_empties_on_the_receipt(
    bench: Bench, tmp_path: Path
) -> None:
    settings = site.enrolled(bench, tmp_path)
    with site.serving(bench, tmp_path, settings) as north:
        draft = north.draft("DraftDataset", north.registration())
        north.agent.link.close()
        wait_for(lambda: not north.agent.link.state.connected)
        north.agent.releases.receipt_seconds = 0.1
        (sent,) = north.release(draft)
        assert not sent.HasField("receipt")
        assert not north.dataset().accepted
    with site.serving(bench, tmp_path, settings) as north:
        wait_for(lambda: north.dataset().accepted)
        assert not north.agent.journal.waiting()


def test_a_receipt_that_does_not_hold_empties_nothing(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path)
    with at_double(bench, settings) as (coordinator, agent):
        envelope = registered_offline(agent, settings, tmp_path)
        coordinator.send(welcome=welcome(bench, agent))
        (submit,) = coordinator.wait_said("submit")
        assert submit.submit.envelope == envelope
        receipt = ledger_pb2.Receipt(ledger_index=1, checkpoint=checkpoint(bench))
        coordinator.send(
            receipted=fleet_pb2.Receipted(
                envelope_digest=statement.digest(envelope), receipt=receipt
            )
        )
        wait_for(lambda: "RECEIPT_INVALID" in agent.link.state.problem)
        assert agent.journal.waiting()[0].envelope == envelope


def test_one_statement_of_a_dataset_at_a_time(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path)
    with at_double(bench, settings) as (coordinator, agent):
        first = registered_offline(agent, settings, tmp_path)
        from agent.release import Item

        for number, lane in ((2, "north/1"), (3, "north/2")):
            said = pb.AssociationWithdrawn(association_id=number)
            agent.releases.send(Item(said, {}, f"withdrawal:{number}", lane), {})
        coordinator.send(welcome=welcome(bench, agent))
        coordinator.wait_said("submit", 2)
        refused = fleet_pb2.Refused(
            envelope_digest=statement.digest(first), kind="not found", code="GONE", text="gone"
        )
        coordinator.send(refused=refused)
        submits = coordinator.wait_said("submit", 3)
        numbers = [statement.unverified(each.submit.envelope).predicate for each in submits]
        assert [n.association_id for n in numbers if isinstance(n, pb.AssociationWithdrawn)] == [
            1, 3, 2,
        ]  # fmt: skip
        entry = agent.journal.outgoing(statement.digest(first))
        assert entry is not None
        assert entry.refusal == ("not found", "GONE", "gone")


def test_an_order_is_written_down_before_it_is_acknowledged(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path)
    with site.serving(bench, tmp_path, settings) as north:
        north.ready()
    number = bench.order(bench.models[0])
    bundle = site.bundle_of(bench, number)
    with at_double(bench, settings) as (coordinator, agent):
        order = fleet_pb2.Order(execution_id=number, bundle=bundle, line=0)
        add = agent.journal.add_order
        written: list[bool] = []

        def watched(*values: object) -> object:
            written.append(not coordinator.said("order_accepted"))
            return add(*values)  # type: ignore[arg-type]

        agent.journal.add_order = watched  # type: ignore[assignment, method-assign]
        coordinator.send(welcome=welcome(bench, agent, orders=[order]))
        coordinator.wait_said("order_accepted")
        assert written == [True]
        assert agent.journal.order(number) is not None
        coordinator.send(order=order)
        coordinator.wait_said("order_accepted", 2)
        assert len(agent.journal.executions(execution_id=number)) == 1
        replayed = fleet_pb2.Order(execution_id=number + 1, bundle=bundle, line=0)
        coordinator.send(order=replayed)
        wait_for(lambda: "ORDER_REPLAYED" in agent.link.state.problem)


def test_a_forged_order_is_not_taken(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path)
    with site.serving(bench, tmp_path, settings) as north:
        north.ready()
    number = bench.order(bench.models[0])
    bundle = site.bundle_of(bench, number)
    bundle.statement.envelope = bundle.enrolment.envelope
    with at_double(bench, settings) as (coordinator, agent):
        order = fleet_pb2.Order(execution_id=number, bundle=bundle, line=0)
        coordinator.send(welcome=welcome(bench, agent, orders=[order]))
        wait_for(lambda: "NOT_IN_LEDGER" in agent.link.state.problem)
        assert agent.journal.order(number) is None
        assert not coordinator.said("order_accepted")


def test_a_rewritten_ledger_ends_the_link_for_good(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path)
    with site.serving(bench, tmp_path, settings):
        pass
    bench.add_model("one more entry")
    with at_double(bench, settings) as (coordinator, agent):
        forged = [b"\0" * 32]
        coordinator.send(welcome=welcome(bench, agent, consistency_proof=forged))
        wait_for(lambda: agent.link.state.ended)
        with Site(bench, tmp_path, settings, agent).api() as api:
            found = api.GetStatus(site_pb2.GetStatusRequest(), timeout=SECONDS)
        assert "LEDGER_REWRITTEN" in found.link_problem
        assert (found.link_ended, found.connected) == (True, False)
        assert not found.HasField("next_try_at")
        assert len(coordinator.said("hello")) == 1


def hurried(agent: Agent) -> None:
    """The link comes back at once, whatever ended the stream."""
    agent.link._backoff = Backoff(uniform=lambda _, most: 0.01 * most / CALM_WAIT_S)


def elsewhere() -> Refusal:
    return Refusal(Kind.CONFLICT, "SITE_ELSEWHERE", "another agent is connected")


def test_who_was_superseded_yields_until_it_is_welcome(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path)
    with at_double(bench, settings) as (coordinator, agent):
        hurried(agent)
        coordinator.send(welcome=welcome(bench, agent))
        coordinator.send(superseded=fleet_pb2.Superseded())
        wait_for(lambda: "SUPERSEDED" in agent.link.state.problem)
        coordinator.wait_said("hello", 2)
        coordinator.mailbox.put(elsewhere())
        coordinator.wait_said("hello", 3)
        assert "SITE_ELSEWHERE" in agent.link.state.problem
        coordinator.send(welcome=welcome(bench, agent))
        wait_for(lambda: agent.link.state.connected)
        coordinator.mailbox.put(None)
        hellos = [said.hello for said in coordinator.wait_said("hello", 4)]
        assert [hello.yields for hello in hellos[:4]] == [False, True, True, False]
        assert len({hello.session_id for hello in hellos}) == 1
        assert len(hellos[0].session_id) == 16


def test_two_agents_of_one_site_never_fight(bench: Bench, tmp_path: Path) -> None:
    first = site.enrolled(bench, tmp_path)
    second = first.model_copy(
        update={
            "state_dir": first.state_dir.parent / "second",
            "socket": first.socket.parent / "second.sock",
        }
    )
    shutil.copytree(first.identity_dir, second.identity_dir)
    with site.serving(bench, tmp_path, first) as old:
        hurried(old.agent)
        with site.serving(bench, tmp_path, second) as new:
            wait_for(lambda: "SITE_ELSEWHERE" in old.agent.link.state.problem)
            since = new.agent.link.state.connected_at
            assert new.register() == "north/1"
            assert new.agent.link.state.connected
            assert new.agent.link.state.connected_at == since
        wait_for(lambda: old.agent.link.state.connected)


def test_a_coordinator_that_drains_is_dialled_again_without_noise(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = site.enrolled(bench, tmp_path)
    with at_double(bench, settings) as (coordinator, agent):
        coordinator.send(welcome=welcome(bench, agent))
        wait_for(lambda: agent.link.state.connected)
        caplog.clear()
        coordinator.mailbox.put(Refusal(Kind.UNAVAILABLE, "DRAINING", "stops"))
        coordinator.wait_said("hello", 2)
        assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


def test_a_coordinator_that_never_welcomes_is_dialled_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent.session, "WELCOME_S", 0.3)
    settings = site.enrolled(bench, tmp_path)
    with at_double(bench, settings) as (coordinator, north):
        wait_for(lambda: "expected a Welcome within 0.3 s" in north.link.state.problem)
        coordinator.wait_said("hello", 2)


def test_an_order_that_cannot_be_written_now_is_asked_for_again(
    bench: Bench, tmp_path: Path
) -> None:
    settings = site.enrolled(bench, tmp_path)
    with site.serving(bench, tmp_path, settings) as north:
        north.ready()
    number = bench.order(bench.models[0])
    order = fleet_pb2.Order(execution_id=number, bundle=site.bundle_of(bench, number), line=0)
    with at_double(bench, settings) as (coordinator, agent):
        hurried(agent)
        full_once(agent.journal, "add_order")
        coordinator.send(welcome=welcome(bench, agent, orders=[order]))
        coordinator.wait_said("hello", 2)
        assert "DISK_FULL" in agent.link.state.problem
        assert not coordinator.said("order_accepted")
        coordinator.send(welcome=welcome(bench, agent, orders=[order]))
        coordinator.wait_said("order_accepted")
        assert agent.journal.order(number) is not None


@pytest.mark.parametrize("method", ["first_of_lanes", "fact"])
def test_what_cannot_be_said_ends_the_stream_with_its_reason(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    """A heartbeat sends what waits, Hello says which checkpoint was seen."""
    settings = site.enrolled(bench, tmp_path)
    with at_double(bench, settings) as (coordinator, agent):
        hurried(agent)
        coordinator.send(welcome=welcome(bench, agent))
        wait_for(lambda: agent.link.state.connected)
        full = full_once(agent.journal, method, lambda *asked: asked in ((), ("checkpoint",)))
        if method == "fact":
            agent.link.reconnect()
        wait_for(lambda: "DISK_FULL" in agent.link.state.problem)
        assert full.is_set()
        coordinator.wait_said("hello", 2)
    assert "iterating requests" not in caplog.text


def test_what_found_no_answer_is_sent_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the same stream: the answer got lost, or was a no that passes, or one of a newer kind."""
    monkeypatch.setattr(agent.outbox, "ANSWER_S", 0.3)
    monkeypatch.setattr(agent.outbox, "RETRY_S", 0.3)
    settings = site.enrolled(bench, tmp_path)
    with at_double(bench, settings) as (coordinator, north):
        envelope = registered_offline(north, settings, tmp_path)
        coordinator.send(welcome=welcome(bench, north))
        coordinator.wait_said("submit", 2)
        for count, kind in ((3, "exhausted"), (4, "of another time")):
            refused = fleet_pb2.Refused(
                envelope_digest=statement.digest(envelope), kind=kind, code="LATER", text="later"
            )
            coordinator.send(refused=refused)
            coordinator.wait_said("submit", count)
        assert [entry.envelope for entry in north.journal.waiting()] == [envelope]
        assert len(coordinator.said("hello")) == 1


def test_days_offline_are_caught_up_with_few_writes(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path)
    with at_double(bench, settings) as (coordinator, agent):
        hurried(agent)
        writes, set_fact = [], agent.journal.set_fact

        def counted(name: str, value: str) -> None:
            writes.append(name)
            set_fact(name, value)

        agent.journal.set_fact = counted  # type: ignore[method-assign]
        coordinator.send(welcome=welcome(bench, agent))
        for index in (*range(5000), 17):
            coordinator.send(news=fleet_pb2.News(ledger_index=index))
        coordinator.mailbox.put(None)
        again = coordinator.wait_said("hello", 2)[1]
        assert again.hello.cursor == 5000
        assert writes.count("cursor") < 200


def test_renewal_goes_by_the_clock_that_made_the_certificate(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path)
    with at_double(bench, settings) as (coordinator, agent):
        past = datetime.now(UTC) - timedelta(days=10)
        coordinator.send(welcome=welcome(bench, agent, coordinator_time=stamp(past)))
        wait_for(lambda: agent.link.state.connected)
        ahead = agent.uplink.coordinator_now() - past
        assert timedelta(0) <= ahead < timedelta(minutes=1)
        assert not agent.uplink.identity.renewal_due(agent.uplink.coordinator_now())


def test_a_clock_that_is_set_during_a_stream_counts_at_once(bench: Bench, tmp_path: Path) -> None:
    settings, put_back = site.enrolled(bench, tmp_path), [0.0]
    with at_double(bench, settings) as (coordinator, agent):
        coordinator.send(welcome=welcome(bench, agent))
        wait_for(lambda: agent.link.state.connected)
        clock = Clock(agent.link.clock_set, wall=lambda: time.time() - put_back[0])
        for seconds in (0.0, 3.0):
            put_back[0] = seconds
            clock.look()
        assert len(coordinator.said("hello")) == 1, "no more than any clock does"
        put_back[0] = 86400.0
        clock.look()
        clock.look()
        coordinator.wait_said("hello", 2)
        ahead = agent.uplink.coordinator_now() - datetime.now(UTC)
        assert abs(ahead - timedelta(days=1)) < timedelta(minutes=1)
        assert len(coordinator.said("hello")) == 2


def test_who_has_much_to_say_sends_heartbeats_all_the_same(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path)
    with at_double(bench, settings) as (coordinator, agent):
        coordinator.send(welcome=welcome(bench, agent))
        wait_for(lambda: agent.link.state.connected)
        before = coordinator.heartbeats

        def told() -> bool:
            for _ in range(100):
                agent.link.preparing(fleet_pb2.Preparing(dataset_id="north/1"))
            return coordinator.heartbeats > before + 2

        wait_for(told)


def test_an_expired_certificate_that_looks_good_here_blames_the_clock(
    bench: Bench, tmp_path: Path
) -> None:
    settings = site.enrolled(bench, tmp_path)
    with at_double(bench, settings) as (coordinator, agent):
        refusal = Refusal(Kind.UNAUTHENTICATED, "CERTIFICATE_EXPIRED", "it has expired")
        coordinator.mailbox.put(refusal)
        wait_for(lambda: "check the clock first" in agent.link.state.problem)


def test_a_clock_that_is_off_is_told(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path)
    with at_double(bench, settings) as (coordinator, agent):
        past = stamp(datetime.now(UTC) - timedelta(hours=1))
        coordinator.send(welcome=welcome(bench, agent, coordinator_time=past))
        wait_for(lambda: "CLOCK_SKEW" in agent.link.state.problem)
        assert agent.link.state.connected


def test_a_clock_that_was_set_is_no_reason_to_wait_any_longer(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path)
    with at_double(bench, settings) as (coordinator, agent):
        coordinator.mailbox.put(Refusal(Kind.UNAUTHENTICATED, "CERTIFICATE_EXPIRED", "expired"))
        state = agent.link.state
        wait_for(lambda: state.next_try_at - time.time() > FINAL_WAIT_S / 3)
        agent.link.clock_set(7200.0)
        coordinator.wait_said("hello", 2)


def test_a_certificate_that_is_not_valid_yet_is_tried_again_soon(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a boot with a clock that is far behind, before it is synchronised."""
    settings = site.enrolled(bench, tmp_path)
    with monkeypatch.context() as behind, contextlib.ExitStack() as stack:
        behind.setattr(authority, "datetime", ahead(timedelta(days=31)))
        with double(bench.world) as refused:
            point_at(settings, refused.address)
            agent = Agent(settings, lambda _: bench.engine)
            agent.link._backoff = Backoff(lambda _, most: 0.05 if most <= CAP_S else most)
            stack.enter_context(agent)
            wait_for(lambda: "CLOCK_SKEW" in agent.link.state.problem)
            assert not refused.heard
        behind.undo()
        with double(bench.world, refused.address) as coordinator:
            coordinator.wait_said("hello")
            stack.close()
    point_at(settings, bench.world.house.address)


def test_who_wants_another_stream_while_one_is_begun_gets_it(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = site.enrolled(bench, tmp_path)
    with site.serving(bench, tmp_path, settings) as north:
        link, begun = north.agent.link, []

        def forget() -> None:
            begun.append(link._uplink.identity)
            if len(begun) == 1:
                north.agent.uplink.renew()
                link.reconnect()

        monkeypatch.setattr(north.agent.link._outbox, "forget", forget)
        link.reconnect()
        wait_for(lambda: len(begun) == 2 and link.state.connected)
        assert begun[1] is north.agent.uplink.identity is not begun[0]
        assert not link._at_once.is_set()


def test_news_moves_the_cursor(bench: Bench, north: Site) -> None:
    north.register()
    wait_for(lambda: int(north.agent.journal.fact("cursor") or 0) > 0)


def test_a_renewed_certificate_needs_no_restart(bench: Bench, north: Site) -> None:
    before = north.agent.uplink.identity.certificate.serial_number
    since = north.agent.link.state.connected_at
    north.agent.uplink.renew()
    north.agent.link.reconnect()
    wait_for(lambda: north.agent.link.state.connected_at > since)
    assert north.agent.uplink.identity.certificate.serial_number != before
    assert north.register() == "north/1"


def test_a_second_agent_on_the_same_state_is_refused(bench: Bench, north: Site) -> None:
    with pytest.raises(Refusal) as caught:
        Agent(north.settings, lambda _: bench.engine)
    assert caught.value.code == "AGENT_RUNNING"


def test_reads_are_passed_on_and_writes_are_not(bench: Bench, north: Site) -> None:
    from housecall.v1 import ledger_pb2_grpc, registry_pb2_grpc

    with grpc.insecure_channel(f"unix:{north.settings.socket}") as channel:
        stub = registry_pb2_grpc.RegistryStub(channel)
        found = stub.ListModels(registry_pb2.ListModelsRequest()).models
        assert [model.statement.name for model in found] == ["reference"]
        ledger = ledger_pb2_grpc.LedgerStub(channel)
        assert ledger.GetCheckpoint(ledger_pb2.GetCheckpointRequest()).checkpoint
        with pytest.raises(grpc.RpcError) as caught:
            ledger.Append(ledger_pb2.AppendRequest(envelope=b"x"))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        status = site_pb2_grpc.SiteApiStub(channel).GetStatus(site_pb2.GetStatusRequest())
        assert (status.connected, status.site) == (True, "spiffe://test/site/north")


def test_nothing_is_watched_for_who_has_gone_already(bench: Bench, north: Site) -> None:
    class Gone:
        def peer(self) -> str:
            return "unix:/run/peer-0-1"

        def add_callback(self, _callback: object) -> bool:
            return False

    class Asked:
        method = "/housecall.v1.Registry/WatchBenchmark"

    watch = Forward(north.agent.uplink).service(Asked()).unary_stream  # type: ignore[arg-type]
    request = registry_pb2.WatchBenchmarkRequest(benchmark_id=1).SerializeToString()
    with pytest.raises(Refusal) as ended:
        list(watch(request, Gone()))
    assert ended.value.code == "CANCELLED"


def test_waits_grow_with_jitter_and_shrink_after_a_good_minute() -> None:
    backoff = Backoff(uniform=lambda _, most: most)
    waits = [backoff.after("", 0) for _ in range(10)]
    assert waits[0] == 1.0
    assert waits == sorted(waits)
    assert waits[-1] == CAP_S
    assert backoff.after("", GOOD_S) == 0.5
    assert all(backoff.after(code, 0) == FINAL_WAIT_S for code in FINAL)
    assert "one of the clocks is off" in FINAL["UNAUTHENTICATED"], "as the log gives the reason"
    assert all(backoff.after(code, 0) == CALM_WAIT_S for code in CALM)
    assert all(backoff.after(code, GOOD_S) == 1.0 for code in SOON)
    assert all(backoff.after(code, GOOD_S) == BASE_S for code in PASSES)


def test_what_found_no_stream_is_sent_on_the_next(
    north: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two streams: a heartbeat of the one that ended may come as late as this."""
    draft = north.draft("DraftDataset", north.registration())
    outbox, done = north.agent.link._outbox, threading.Event()
    forget, stated = outbox.forget, north.agent.releases.release

    def forgotten() -> None:
        forget()
        if not done.is_set():
            stated(draft.digest, 0)
            outbox.pump()
            done.set()

    monkeypatch.setattr(outbox, "forget", forgotten)
    north.agent.link.reconnect()
    wait_for(lambda: done.is_set() and not north.agent.journal.waiting())
