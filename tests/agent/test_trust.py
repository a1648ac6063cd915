"""A name's first enrolment is trusted, another only once a person of the site said so."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from click.testing import CliRunner

from agent.__main__ import main
from agent.journal import Journal
from agent.registry import require_same_person
from housecall.errors import Refusal
from housecall.verify import Verified

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
