"""What the journal lost comes back from the ledger, and nothing that the site did not sign."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from agent import catalog as states
from agent.records import Outgoing
from agent.salvage import salvage
from agent.server import Agent
from agent.settings import Settings
from housecall import statement
from housecall.v1 import fleet_pb2, ledger_pb2, site_pb2
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests.agent import site
from tests.agent.gated import allowing
from tests.agent.site import Bench, Site, wait_for
from tests.agent.test_link import at_double, welcome
from tests.agent.test_orders import wait_ended


@pytest.fixture
def allowed(bench: Bench, tmp_path: Path) -> Settings:
    return site.enrolled(bench, tmp_path, policy_file=allowing(tmp_path))


def lose(settings: Settings) -> None:
    """The journal is gone, but for its backup."""
    for file in settings.state_dir.glob("journal.sqlite*"):
        file.unlink()
    salvage(settings.state_dir / "journal.sqlite")


@contextmanager
def recalled(bench: Bench, folder: Path, settings: Settings) -> Iterator[Site]:
    """The agent once it has caught up, and has its receipts again."""
    with site.serving(bench, folder, settings) as north:
        journal = north.agent.journal
        wait_for(lambda: not journal.recalls() and not journal.waiting())
        north.agent._reconcile()
        yield north


def accepted(journal_entry: Outgoing | None) -> int:
    """The ledger index in its receipt."""
    assert journal_entry is not None
    assert journal_entry.state == "accepted"
    return ledger_pb2.Receipt.FromString(journal_entry.receipt).ledger_index


def succeeds(bench: Bench, model: pb.Pin) -> bool:
    return wait_ended(bench, bench.order(model)).state == pb.EXECUTION_STATE_SUCCEEDED


def test_a_registration_that_was_lost_is_known_again(
    bench: Bench, tmp_path: Path, allowed: Settings
) -> None:
    with site.serving(bench, tmp_path, allowed) as north:
        north.agent.journal.back_up()
        north.register()
        envelope_digest = north.agent.catalog.get("1").envelope_digest
        before = accepted(north.agent.journal.outgoing(envelope_digest))
    lose(allowed)
    with Agent(allowed, lambda _: bench.engine) as unlinked:
        assert [each.id for each in unlinked.catalog.all()] == ["north/1"]
    with recalled(bench, tmp_path, allowed) as north:
        assert north.dataset().accepted
        entry = north.agent.journal.outgoing(envelope_digest)
        assert accepted(entry) == before
        assert entry is not None
        assert entry.id == "north/1"


def test_a_dataset_stays_operational(bench: Bench, tmp_path: Path, allowed: Settings) -> None:
    with site.serving(bench, tmp_path, allowed) as north:
        north.register()
        north.agent.journal.back_up()
        north.prepare()
        north.operational()
        north.release(north.associate())
        vote = pb.AssociationDecided(association_id=1, decision=pb.DECISION_APPROVE, reason="good")
        bench.carla.state(vote)
    lose(allowed)
    with recalled(bench, tmp_path, allowed) as north:
        assert north.agent.catalog.get("1").state == states.OPERATIONAL
        assert succeeds(bench, bench.models[0])


def test_a_result_that_was_lost_is_replaced_by_the_next_one(
    bench: Bench, tmp_path: Path, allowed: Settings
) -> None:
    with site.serving(bench, tmp_path, allowed) as north:
        north.ready()
        north.agent.journal.back_up()
        assert succeeds(bench, bench.models[0])
    lose(allowed)
    again = bench.order(bench.models[0])  # it comes with the Welcome, before the news
    with recalled(bench, tmp_path, allowed) as north:
        assert wait_ended(bench, again).state == pb.EXECUTION_STATE_SUCCEEDED
        north.run(rerun=True)
        request = site_pb2.DraftResultRequest(name="b1m1d1", supersede=True)
        assert north.release(north.draft("DraftResult", request))[0].HasField("receipt")


def test_the_newest_result_stands_in_whatever_order_they_were_learned(
    bench: Bench, tmp_path: Path, allowed: Settings
) -> None:
    """A page with the older one alone was damaged."""
    with site.serving(bench, tmp_path, allowed) as north:
        north.ready()
        assert succeeds(bench, bench.models[0])
        assert succeeds(bench, bench.models[0])
        newest, oldest = north.agent.journal.sent_about("result:b1m1d1")
    lost = "DELETE FROM outbox WHERE envelope_digest = ?"
    with closing(sqlite3.connect(allowed.state_dir / "journal.sqlite")) as db, db:
        db.execute(lost, (oldest.envelope_digest,))
        db.execute("DELETE FROM facts WHERE name = 'cursor'")
    with recalled(bench, tmp_path, allowed) as north:
        found = wait_for(lambda: north.agent.journal.outgoing(oldest.envelope_digest))
        assert found.seq > newest.seq
        standing = north.agent.results.standing("result", "b1m1d1")
        assert standing is not None
        assert standing.envelope_digest == newest.envelope_digest
        assert succeeds(bench, bench.models[0])


def test_a_new_machine_takes_the_next_number(
    bench: Bench, tmp_path: Path, allowed: Settings
) -> None:
    with site.serving(bench, tmp_path, allowed) as north:
        north.register()
    revoked = pb.ParticipantRevoked(name="spiffe://test/site/north", reason="stolen disk")
    bench.world.operator.state(revoked)
    with site.serving(bench, tmp_path, site.enrolled(bench, tmp_path)) as north:
        wait_for(lambda: north.agent.journal.registered_number() == 1)
        assert not north.agent.journal.sent_about("dataset:1"), "another key signed it"
        assert north.register() == "north/2"


def test_what_the_site_did_not_sign_is_not_written_down(
    bench: Bench, tmp_path: Path, allowed: Settings
) -> None:
    with site.serving(bench, tmp_path, allowed) as north:
        north.ready()
        assert succeeds(bench, bench.models[0])
        (result,) = north.agent.journal.sent_about("result:b1m1d1")
    found = bench.carla.registry.GetResult(reg.GetResultRequest(name="north/b1m1d1")).result
    said = found.statement
    said.metrics.update({"accuracy": 1.0})
    payload = statement.build(said, {})
    forged = statement.sign(payload, bench.carla.identity.signing_key)
    renamed = forged.replace(
        statement.unverified(forged).key_id.encode(),
        statement.unverified(result.envelope).key_id.encode(),
    )
    with at_double(bench, allowed) as (coordinator, agent):
        coordinator.send(welcome=welcome(bench, agent))
        for number, envelope in enumerate((forged, renamed)):
            coordinator.send(news=fleet_pb2.News(ledger_index=10**6 + number, envelope=envelope))
        coordinator.send(caught_up=fleet_pb2.CaughtUp())
        wait_for(lambda: int(agent.journal.fact("cursor")) == 10**6 + 2)
        kept = agent.journal.sent_about("result:b1m1d1")
        assert [each.envelope for each in kept] == [result.envelope]
