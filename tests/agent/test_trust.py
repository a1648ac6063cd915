"""A name's first enrolment is trusted, another only once a person of the site said so."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner

from agent.__main__ import main
from agent.journal import Journal
from agent.orders import Orders
from agent.registry import require_same_person
from housecall import client
from housecall.errors import Refusal
from housecall.v1 import statements_pb2 as pb
from housecall.verify import Verified
from tests.agent.site import Site, wait_for
from tests.agent.test_status import status
from tests.coordinator.world import Party

MONA = "spiffe://test/person/mona"


def enrolled_in(letter: str) -> Verified:
    made = SimpleNamespace(signer=MONA, enrolment_digest=f"sha256:{letter * 64}")
    return cast(Verified, made)


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


def test_a_trust_that_is_given_in_the_same_moment_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing, another = cast(Any, None), enrolled_in("b")
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        orders = Orders(journal, nothing, nothing, nothing, nothing, nothing)
        require_same_person(journal, enrolled_in("a"))

        def trusted_right_after(journal: Journal, verified: Verified) -> None:
            try:
                require_same_person(journal, verified)
            finally:
                journal.trust(verified.signer, verified.enrolment_digest)

        monkeypatch.setattr("agent.orders.require_same_person", trusted_right_after)
        with pytest.raises(Refusal):
            orders._require_trusted(another)
        assert orders.trusted_anew()
        assert not orders.trusted_anew()


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
    enrolment = north.agent.link.state.problem.partition("got ")[2].partition(";")[0]
    config = north.folder / "agent.toml"
    config.write_text(f'state_dir = "{north.settings.state_dir}"\n')
    said = CliRunner().invoke(main, ["trust", carla.name, enrolment, "--config", str(config)])
    assert said.exit_code == 0, said.output
    wait_for(lambda: journal.order(number))
    assert not north.agent.link.state.problem
    carla.channel.close()
