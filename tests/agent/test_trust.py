"""A name's first enrolment is trusted, another only once a person of the site said so."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from click.testing import CliRunner

from agent.__main__ import main
from agent.journal import Journal
from agent.journal_file import schema_of
from agent.records import Execution
from agent.registry import require_same_person
from agent.untaken import Untaken
from housecall import client
from housecall.errors import Refusal
from housecall.v1 import fleet_pb2
from housecall.v1 import statements_pb2 as pb
from housecall.verify import Verified
from tests.agent.site import Site, wait_for
from tests.agent.test_status import status
from tests.coordinator.world import Party

MONA = "spiffe://test/person/mona"


def enrolled_in(letter: str) -> Verified:
    made = SimpleNamespace(signer=MONA, enrolment_digest=f"sha256:{letter * 64}")
    return cast(Verified, made)


def execution_of_order(number: int) -> Execution:
    return Execution(1, 2, "sha256:2", "north/1", "BENCHMARK", execution_id=number)


def test_another_enrolment_waits_for_a_person(tmp_path: Path) -> None:
    first, another = enrolled_in("a"), enrolled_in("b")
    config = tmp_path / "agent.toml"
    config.write_text(f'state_dir = "{tmp_path}"\n')
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        require_same_person(journal, first)
        require_same_person(journal, first)
        with pytest.raises(Refusal) as caught:
            require_same_person(journal, another)
    assert caught.value.code == "SIGNER_CHANGED"
    command = f"housecall-agent trust {MONA} {another.enrolment_digest}"
    assert command in caught.value.message
    said = CliRunner().invoke(
        main, ["trust", MONA, another.enrolment_digest, "--config", str(config)]
    )
    assert said.exit_code == 0, said.output
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        require_same_person(journal, another)
        require_same_person(journal, first)


def test_a_trust_that_could_do_nothing_is_refused(tmp_path: Path) -> None:
    config, state, digest = tmp_path / "agent.toml", tmp_path / "state", f"sha256:{'b' * 64}"
    config.write_text(f'state_dir = "{state}"\n')

    def refused(name: str, enrolment: str, exit_code: int, code: str) -> str:
        said = CliRunner().invoke(main, ["trust", name, enrolment, "--config", str(config)])
        assert (said.exit_code, f"[{code}]" in said.output) == (exit_code, True), said.output
        return said.output

    assert str(state) in refused(MONA, digest, 3, "JOURNAL_MISSING")
    assert not state.exists()
    Journal(state / "journal.sqlite").close()
    for name in ("x", "person/mona", "spiffe://test/coordinator", "spiffe://test/join/mona"):
        refused(name, digest, 2, "NAME_INVALID")
    for enrolment in ("y", "sha256:", f"sha256:{'B' * 64}", f"{digest}0"):
        refused(MONA, enrolment, 2, "DIGEST_INVALID")
    with closing(sqlite3.connect(state / "journal.sqlite")) as older:
        older.execute("UPDATE facts SET value = '2' WHERE name = 'schema_version'")
        older.commit()
    assert "restart the agent first" in refused(MONA, digest, 6, "JOURNAL_OLDER")
    assert schema_of(state / "journal.sqlite") == 2, "it is left as it was"


def test_a_trust_that_is_given_in_the_same_moment_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = enrolled_in("b")
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        untaken = Untaken(journal)
        require_same_person(journal, enrolled_in("a"))

        def trusted_right_after(journal: Journal, verified: Verified) -> None:
            try:
                require_same_person(journal, verified)
            finally:
                journal.trust(verified.signer, verified.enrolment_digest)

        monkeypatch.setattr("agent.untaken.require_same_person", trusted_right_after)
        with pytest.raises(Refusal):
            untaken.require_trusted(another, execution_of_order(7))
        assert untaken.trusted_anew()
        assert not untaken.trusted_anew()
        assert not untaken.orders()


def test_an_untaken_order_is_known_until_it_is_open_no_more(tmp_path: Path) -> None:
    clock = iter(range(1, 9))
    with closing(Journal(tmp_path / "journal.sqlite", clock=lambda: next(clock))) as journal:
        untaken = Untaken(journal)
        require_same_person(journal, enrolled_in("a"))
        for number in (1, 2, 3, 1):
            with pytest.raises(Refusal):
                untaken.require_trusted(enrolled_in("b"), execution_of_order(number))
        assert [each.since for each in untaken.orders()] == [1, 2, 3], "since the first time"
        untaken.forget(2)
        untaken.keep({3, 4})
        assert [each.execution.execution_id for each in untaken.orders()] == [3]


def test_an_order_of_who_enrolled_anew_is_taken_once_a_person_trusts_them(north: Site) -> None:
    north.ready()
    world, old, journal = north.bench.world, north.bench.carla, north.agent.journal
    world.operator.state(pb.ParticipantRevoked(name=old.name, reason="a lost key"))
    identity = client.enrol(world.token("carla", pb.ROLE_PERSON), north.folder / "carla")
    carla = Party(identity, client.connect(identity))
    north.bench.carla = carla
    number = north.bench.order(north.bench.models[0])
    wait_for(lambda: "SIGNER_CHANGED" in north.agent.link.state.problem)
    assert "SIGNER_CHANGED" in status(north).link_problem
    assert journal.order(number) is None
    (row,) = status(north).work
    assert (row.execution_id, row.waits_for) == (number, fleet_pb2.WAIT_REASON_TRUST)
    enrolment = row.next_step.rpartition(" ")[2].rstrip("`")
    north.agent.link.reconnect()
    wait_for(lambda: enrolment in north.agent.link.state.problem)
    config = north.folder / "agent.toml"
    config.write_text(f'state_dir = "{north.settings.state_dir}"\n')
    said = CliRunner().invoke(main, ["trust", carla.name, enrolment, "--config", str(config)])
    assert said.exit_code == 0, said.output
    wait_for(lambda: journal.order(number))
    assert not north.agent.link.state.problem
    assert fleet_pb2.WAIT_REASON_TRUST not in {each.waits_for for each in status(north).work}
    carla.channel.close()
