"""Which end answers, with whose identity; the ledger; operators' commands; enrolment's doors."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from cli import credentials
from housecall import tokens
from housecall.v1 import authority_pb2
from housecall.v1 import statements_pb2 as pb
from tests.cli.certificates import TestAuthority
from tests.cli.conftest import World
from tests.cli.fake_registry import ADA


def test_the_identity_answers_reads_first(elsewhere: World) -> None:
    elsewhere.socket.touch()
    assert elsewhere.json("whoami")["answered_by"] == f"coordinator {elsewhere.address}"


def test_the_socket_answers_where_there_is_no_identity(at_site: World) -> None:
    assert at_site.json("whoami")["answered_by"] == f"agent at {at_site.socket}"


def test_socket_on_the_command_line_wins(at_site: World) -> None:
    at_site.address = "127.0.0.1:1"
    at_site.enrol()
    words = ("--socket", str(at_site.socket), "benchmark", "ls")
    assert at_site.run(*words).exit_code == 0


def test_neither_end_says_both_ways(world: World) -> None:
    result = world.run("benchmark", "ls")
    assert result.exit_code == 6
    assert "housecall enroll --token" in result.stderr
    assert "HOUSECALL_SOCKET" in result.stderr
    assert "[NO_END]" in result.stderr


def test_a_profile_is_an_identity_of_its_own(elsewhere: World) -> None:
    elsewhere.enrol(profile="work")
    assert elsewhere.run("--profile", "work", "whoami").exit_code == 0
    missing = elsewhere.run("--profile", "other", "whoami")
    assert missing.exit_code == 6
    assert "[NOT_ENROLLED]" in missing.stderr
    rows = elsewhere.json("profile", "ls")
    assert [(row["profile"], row["chosen"]) for row in rows] == [("default", True), ("work", False)]


@pytest.mark.parametrize(
    ("name", "text"), [("identity.json", "{"), ("chain.pem", "{"), ("chain.pem", None)]
)
def test_a_damaged_identity(elsewhere: World, name: str, text: str | None) -> None:
    path = elsewhere.home / "identity" / name
    path.unlink() if text is None else path.write_text(text)
    result = elsewhere.run("whoami")
    assert result.exit_code == 2
    assert "[IDENTITY_DAMAGED]" in result.stderr


def test_no_coordinator(world: World) -> None:
    world.address = "127.0.0.1:1"
    world.enrol()
    result = world.run("whoami")
    assert result.exit_code == 8
    assert "cannot reach coordinator 127.0.0.1:1: is it running?" in result.stderr


def test_another_ca(elsewhere: World) -> None:
    elsewhere.authority = TestAuthority()
    elsewhere.enrol()
    result = elsewhere.run("whoami")
    assert result.exit_code in (8, 9)
    assert "Traceback" not in result.output


def test_when_to_renew_is_noted_once(elsewhere: World) -> None:
    elsewhere.done("whoami")
    folder = elsewhere.home / "identity"
    version, due = (folder / credentials.NOTE).read_text().split()
    assert int(version) == (folder / "chain.pem").stat().st_mtime_ns
    assert time.time() < float(due) < time.time() + 86400


def test_a_due_certificate_is_renewed_or_used_with_a_warning(elsewhere: World) -> None:
    elsewhere.enrol(age=timedelta(hours=20))
    result = elsewhere.run("whoami")
    assert result.exit_code == 0, result.output
    assert "warning: the certificate could not be renewed" in result.stderr
    before = (elsewhere.home / "identity" / "chain.pem").read_bytes()

    def renew(request: authority_pb2.RenewRequest) -> authority_pb2.RenewResponse:
        chain = elsewhere.authority.certify(request.csr).decode()
        return authority_pb2.RenewResponse(certificate_chain=chain)

    elsewhere.ledger.renew = renew
    result = elsewhere.run("whoami")
    assert "warning" not in result.stderr
    assert (elsewhere.home / "identity" / "chain.pem").read_bytes() != before


def test_site_status_and_ls(at_site: World) -> None:
    assert at_site.json("site", "status")["disk_free_bytes"] == 2**60 + 1
    rows = [line.split()[:2] for line in at_site.done("site", "ls").splitlines()[2:]]
    assert rows == [["north", "yes"], ["south", "no"]]
    assert len(at_site.json("site", "ls", "--connected")) == 1


def test_ledger_checkpoint_and_entry(elsewhere: World) -> None:
    assert elsewhere.json("ledger", "checkpoint")["tree_size"] == 2
    assert elsewhere.done("ledger", "checkpoint") == elsewhere.ledger.checkpoint()
    entry = elsewhere.json("ledger", "entry", "1")
    assert (entry["kind"], entry["signer"]) == ("ParticipantEnrolled", ADA)
    assert elsewhere.json("ledger", "entry", "0")["signer"] == "spiffe://demo/coordinator"


def test_ledger_verify_remembers_and_demands_growth(elsewhere: World) -> None:
    first = elsewhere.json("ledger", "verify")
    assert (first["entries_checked"], first["continues_tree_of"]) == (2, None)
    for _ in range(5):
        elsewhere.done("association", "approve", "1", "--reason", "r")
    second = elsewhere.json("ledger", "verify")
    assert (second["entries_checked"], second["continues_tree_of"]) == (7, 2)
    (kept,) = (elsewhere.home / "checkpoints").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert elsewhere.json("ledger", "verify", "--entries", "3")["entries_checked"] == 3


@pytest.mark.parametrize("words", [[], ["--entries", "2"]])
def test_ledger_verify_counts_what_is_withheld(elsewhere: World, words: list[str]) -> None:
    elsewhere.ledger.withheld = {1}
    answer = elsewhere.json("ledger", "verify", *words)
    assert (answer["entries_checked"], answer["entries_withheld"]) == (1, 1)


def test_ledger_verify_finds_a_rewritten_history(elsewhere: World) -> None:
    elsewhere.done("association", "approve", "1", "--reason", "r")
    elsewhere.done("ledger", "verify")
    envelopes, elsewhere.ledger.envelopes = elsewhere.ledger.envelopes, []
    for envelope in (envelopes[0], envelopes[2], envelopes[1], envelopes[2]):
        elsewhere.ledger.add(envelope)
    result = elsewhere.run("ledger", "verify")
    assert result.exit_code == 2
    assert "[LEDGER_REWRITTEN]" in result.stderr


def test_ledger_verify_finds_an_entry_that_was_swapped(elsewhere: World) -> None:
    elsewhere.ledger.envelopes[0] = elsewhere.ledger.envelopes[1]
    result = elsewhere.run("ledger", "verify")
    assert "the entries do not give the checkpoint's root" in result.stderr


def test_ledger_at_a_site_uses_the_agents_pinned_key(at_site: World) -> None:
    assert at_site.json("ledger", "verify")["entries_checked"] == 1


def test_token_create_prints_a_token_that_holds(elsewhere: World, tmp_path: Path) -> None:
    elsewhere.ledger.certified = [elsewhere.authority.root_der]
    out = tmp_path / "north.token"
    result = elsewhere.run("admin", "token", "create", "--site", "north", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    token = tokens.read(out.read_text())
    assert (token.name, token.role) == ("spiffe://demo/site/north", pb.ROLE_SITE)
    assert token.address == elsewhere.address
    stated = elsewhere.ledger.stated()
    assert isinstance(stated, pb.JoinTokenIssued)
    assert len(stated.token_id) == 16
    assert stated.expires_at == token.expires_at
    assert f"Next: housecall-agent enroll --token @{out}" in result.stderr


def test_token_create_takes_a_new_file_and_states_nothing_without(
    elsewhere: World, tmp_path: Path
) -> None:
    """A token that was made and not kept would stay open."""
    elsewhere.ledger.certified = [elsewhere.authority.root_der]
    out = tmp_path / "north.token"
    words = ["admin", "token", "create", "--site", "north", "--out"]
    assert elsewhere.run(*words, str(out)).exit_code == 0
    stated, text = len(elsewhere.ledger.envelopes), out.read_text()
    for taken in (out, Path("/dev/full")):
        result = elsewhere.run(*words, str(taken))
        assert result.exit_code == 5
        assert f"there is something at {taken} already" in result.stderr
    assert elsewhere.run(*words, str(tmp_path / "none" / "north.token")).exit_code == 2
    assert len(elsewhere.ledger.envelopes) == stated
    assert out.read_text() == text
    assert Path("/dev/full").is_char_device()


def test_token_create_for_an_operator_on_standard_output(elsewhere: World) -> None:
    words = ("admin", "token", "create", "--person", "grace", "--operator", "--expires", "30m")
    token = tokens.read(elsewhere.done(*words))
    assert (token.name, token.role) == ("spiffe://demo/person/grace", pb.ROLE_OPERATOR)


def test_token_create_for_a_certificate_that_ran_out(elsewhere: World) -> None:
    elsewhere.done("admin", "token", "create", "--site", "north", "--renew")
    stated = elsewhere.ledger.stated()
    assert isinstance(stated, pb.JoinTokenIssued)
    assert stated.renews


@pytest.mark.parametrize(
    "words",
    [[], ["--site", "n", "--person", "p"], ["--site", "n", "--operator"],
     ["--site", "n", "--expires", "soon"], ["--site", "North Hospital"]],
)  # fmt: skip
def test_token_create_refuses_nonsense(elsewhere: World, words: list[str]) -> None:
    assert elsewhere.run("admin", "token", "create", *words).exit_code == 2


def test_token_ls_and_revoke(elsewhere: World) -> None:
    north, south = elsewhere.done("admin", "token", "ls").splitlines()[2:]
    assert north.split() == ["0123456789abcdef", "site/north", "site", "open", "-"]
    assert elsewhere.done("admin", "token", "ls", "--state", "used").splitlines()[2:] == [south]
    assert (
        "no join token is revoked"
        in elsewhere.run("admin", "token", "ls", "--state", "revoked").stderr
    )
    elsewhere.done("admin", "token", "revoke", "0123456789abcdef")
    assert elsewhere.ledger.stated() == pb.JoinTokenRevoked(token_id="0123456789abcdef")


def test_revoke_a_participant(elsewhere: World) -> None:
    words = ("admin", "revoke", "site/north", "--reason", "stolen")
    assert elsewhere.run(*words).exit_code == 6
    elsewhere.done(*words, "--yes")
    assert elsewhere.ledger.stated().name == "spiffe://demo/site/north"
    bare = elsewhere.run("admin", "revoke", "north", "--reason", "r", "--yes")
    assert "expected site/NAME or person/NAME" in bare.stderr


def test_revoking_oneself_is_asked_with_a_warning(
    elsewhere: World, terminal: Callable[[], None]
) -> None:
    words = ("admin", "revoke", "person/ada", "--reason", "left")
    result = elsewhere.run(*words, typed="\n")
    assert result.exit_code == 11
    assert "warning: this is you" in result.stderr
    assert "`housecall-coordinator operator-token`" in result.stderr
    assert f"Revoke your own keys, as {ADA}, for good? [y/N]" in result.stderr
    assert elsewhere.run(*words[:-1], "").exit_code == 2
    other = elsewhere.run("admin", "revoke", "person/grace", "--reason", "left", typed="\n")
    assert "this is you" not in other.stderr


def test_enroll_takes_text_a_file_and_standard_input(world: World, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("nonsense")
    for word, typed in (("nonsense", ""), (f"@{tmp_path / 't'}", ""), ("-", "nonsense")):
        result = world.run("enroll", "--token", word, "-o", "json", typed=typed)
        assert result.exit_code == 2
        assert json.loads(result.stdout)["error"]["code"] == "TOKEN_MALFORMED"
    missing = world.run("enroll", "--token", f"@{tmp_path / 'no'}")
    assert missing.exit_code == 2
    assert "No such file" in missing.stderr
