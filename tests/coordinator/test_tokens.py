"""Join tokens: good once, in time, for one name, at one coordinator."""

from __future__ import annotations

import contextlib
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coordinator.caller import Caller, CallerRole
from coordinator.notary import Notary
from coordinator.rebuild import check_store
from coordinator.servicers import authority
from coordinator.store import Reader, Store
from housecall import client, tokens, verify
from housecall.errors import Refusal
from housecall.identity import Identity
from housecall.tokens import read as read_token
from housecall.tokens import write as write_token
from housecall.v1 import authority_pb2, authority_pb2_grpc, ledger_pb2, ledger_pb2_grpc
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests.coordinator.world import World, world


def enrol_refused(token: str, folder: Path) -> str:
    with pytest.raises(Refusal) as caught:
        client.enrol(token, folder)
    assert not (folder / "identity.json").exists()
    return caught.value.code


def test_a_token_makes_an_identity_with_private_files(coordinator: World, tmp_path: Path) -> None:
    party = coordinator.join("north", pb.ROLE_SITE)
    caller = party.registry.GetCaller(reg.GetCallerRequest())
    assert (caller.name, caller.role) == ("spiffe://test/site/north", pb.ROLE_SITE)
    folder = tmp_path / "identities" / "north"
    assert {f.stat().st_mode & 0o777 for f in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert Identity.load(folder).verifier_key == coordinator.house.ledger.verifier_key


def test_a_used_token_is_refused_but_the_same_keys_may_ask_again(
    coordinator: World, tmp_path: Path
) -> None:
    token = coordinator.token("north", pb.ROLE_SITE)
    first = client.enrol(token, tmp_path / "a")
    assert enrol_refused(token, tmp_path / "b") == "TOKEN_USED"
    (tmp_path / "a" / "identity.json").unlink()
    again = client.enrol(token, tmp_path / "a")
    assert again.name == first.name


def test_an_expired_token_is_refused_on_both_sides(coordinator: World, tmp_path: Path) -> None:
    token, soon = token_for_a_moment(coordinator)
    while datetime.now(UTC) <= soon:
        time.sleep(0.01)
    assert enrol_refused(token, tmp_path / "x") == "TOKEN_EXPIRED"
    forged = read_token_unchecked(token)
    forged.expires_at.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    code = enrol_refused(write_token(forged), tmp_path / "y")
    assert code in {"CERTIFICATE_EXPIRED", "UNREACHABLE", "WRONG_CA", "TLS_FAILED"}


def token_for_a_moment(coordinator: World) -> tuple[str, datetime]:
    """A join token and when it expires: as soon as this machine can mint one before that."""
    for seconds in (1, 4, 16, 64):
        soon = datetime.now(UTC) + timedelta(seconds=seconds)
        try:
            return coordinator.token("north", pb.ROLE_SITE, expires_at=soon), soon
        except Refusal as refusal:
            if refusal.code != "TOKEN_EXPIRY":
                raise
    raise AssertionError("minting a token took longer than a minute")


def read_token_unchecked(token: str) -> authority_pb2.JoinToken:
    import base64

    raw = token.removeprefix("hc1.")
    padded = raw + "=" * (-len(raw) % 4)
    return authority_pb2.JoinToken.FromString(base64.urlsafe_b64decode(padded))


def test_a_revoked_token_is_refused(coordinator: World, tmp_path: Path) -> None:
    token = coordinator.token("north", pb.ROLE_SITE)
    token_id = tokens.token_id(read_token(token))
    coordinator.operator.state(pb.JoinTokenRevoked(token_id=token_id, reason="lost"))
    assert enrol_refused(token, tmp_path / "x") == "TOKEN_REVOKED"
    listed = authority_pb2_grpc.AuthorityStub(coordinator.operator.channel).ListTokens(
        authority_pb2.ListTokensRequest()
    )
    assert [t.state for t in listed.tokens][-1] == authority_pb2.TOKEN_STATE_REVOKED


def test_a_foreign_coordinators_token_is_refused(coordinator: World, tmp_path: Path) -> None:
    with world(tmp_path / "other") as other:
        foreign = read_token(other.token("north", pb.ROLE_SITE))
        foreign.address = coordinator.house.address
        assert enrol_refused(write_token(foreign), tmp_path / "x") == "WRONG_CA"


def test_a_token_is_not_good_for_another_name(coordinator: World, tmp_path: Path) -> None:
    token = read_token(coordinator.token("north", pb.ROLE_SITE))
    token.name = "spiffe://test/site/south"
    assert enrol_refused(write_token(token), tmp_path / "x") == "NOT_ENTITLED"


def test_a_revoked_name_can_be_enrolled_anew_and_its_old_statements_still_verify(
    coordinator: World, tmp_path: Path
) -> None:
    mona = coordinator.join("mona", pb.ROLE_PERSON)
    old = mona.state(pb.ParticipantRevoked(name=mona.name, reason="key lost")).receipt
    shutil.move(tmp_path / "identities" / "mona", tmp_path / "lost")
    again = coordinator.join("mona", pb.ROLE_PERSON)
    assert again.identity.signing_key != mona.identity.signing_key
    new = again.state(pb.ParticipantRevoked(name=again.name, reason="leaving")).receipt
    stub = ledger_pb2_grpc.LedgerStub(coordinator.operator.channel)
    introduced = []
    for receipt in (old, new):
        request = ledger_pb2.GetBundleRequest(ledger_index=receipt.ledger_index)
        bundle = stub.GetBundle(request).bundle
        verify.verify_bundle(bundle, again.identity.verifier_key)
        introduced.append(bundle.enrolment.ledger_index)
    assert introduced[0] < introduced[1]


def test_a_certificate_that_ran_out_is_replaced_and_the_keys_stay(
    coordinator: World, tmp_path: Path
) -> None:
    north, folder = coordinator.join("north", pb.ROLE_SITE), tmp_path / "identities" / "north"
    token = coordinator.token("north", pb.ROLE_SITE, renews=True)
    with pytest.raises(Refusal, match="or one whose certificate ran out, got one until") as caught:
        client.enrol(token, folder)
    assert caught.value.code == "ALREADY_ENROLLED"
    assert enrol_refused(token, tmp_path / "thief") == "NAME_TAKEN"
    coordinator.run_out(folder)
    again = client.enrol(token, folder)
    assert again.signing_key.private_bytes_raw() == north.identity.signing_key.private_bytes_raw()
    with client.connect(again) as channel:
        said = pb.ParticipantRevoked(name=again.name, reason="leaving")
        receipt = client.append(channel, again, said, {"test": "sha256:" + 64 * "0"}).receipt
    stub = ledger_pb2_grpc.LedgerStub(coordinator.operator.channel)
    bundle = stub.GetBundle(ledger_pb2.GetBundleRequest(ledger_index=receipt.ledger_index)).bundle
    verify.verify_bundle(bundle, again.verifier_key)
    assert bundle.enrolment.ledger_index < receipt.ledger_index - 2, "the first one introduced them"


@pytest.mark.parametrize("lost", ["tls.key", "signing.key", "chain.pem", "root.pem"])
def test_an_identity_with_a_file_missing_is_damaged_and_good_keys_get_it_back(
    coordinator: World, tmp_path: Path, lost: str
) -> None:
    north, folder = coordinator.join("north", pb.ROLE_SITE), tmp_path / "identities" / "north"
    (folder / lost).unlink()
    with pytest.raises(Refusal, match=f"{lost} is missing") as caught:
        Identity.load(folder)
    assert caught.value.code == "IDENTITY_DAMAGED"
    token = coordinator.token("north", pb.ROLE_SITE, renews=True)
    for bad in (coordinator.token("south", pb.ROLE_SITE), *([token] if "key" in lost else [])):
        with pytest.raises(Refusal, match=f"{lost} is missing"):
            client.enrol(bad, folder)
    if "key" in lost:
        return
    signing_key = client.enrol(token, folder).signing_key
    assert signing_key.private_bytes_raw() == north.identity.signing_key.private_bytes_raw()


def test_an_identity_of_another_name_is_kept(coordinator: World, tmp_path: Path) -> None:
    coordinator.join("north", pb.ROLE_SITE)
    coordinator.run_out(tmp_path / "identities" / "north")
    with pytest.raises(Refusal, match=r"expected the identity of .*/south, whom") as caught:
        client.enrol(coordinator.token("south", pb.ROLE_SITE), tmp_path / "identities" / "north")
    assert caught.value.code == "ALREADY_ENROLLED"


def test_revoked_keys_never_stand_again(coordinator: World, tmp_path: Path) -> None:
    north, folder = coordinator.join("north", pb.ROLE_SITE), tmp_path / "identities" / "north"
    early = coordinator.token("north", pb.ROLE_SITE, renews=True)
    coordinator.operator.state(pb.ParticipantRevoked(name=north.name, reason="stolen"))
    coordinator.run_out(folder)
    for token in (early, coordinator.token("north", pb.ROLE_SITE)):
        with pytest.raises(Refusal) as caught:
            client.enrol(token, folder)
        assert caught.value.code == "KEY_REVOKED"
    with pytest.raises(Refusal) as caught:
        coordinator.token("north", pb.ROLE_SITE, renews=True)
    assert caught.value.code == "ALREADY_REVOKED"


def test_keys_that_were_revoked_before_others_never_stand_again(
    coordinator: World, tmp_path: Path
) -> None:
    north = coordinator.join("north", pb.ROLE_SITE)
    coordinator.operator.state(pb.ParticipantRevoked(name=north.name, reason="stolen"))
    folder = (tmp_path / "identities" / "north").rename(tmp_path / "lost")
    coordinator.join("north", pb.ROLE_SITE)
    coordinator.operator.state(pb.ParticipantRevoked(name=north.name, reason="stolen again"))
    coordinator.run_out(folder)
    with pytest.raises(Refusal) as caught:
        client.enrol(coordinator.token("north", pb.ROLE_SITE), folder)
    assert caught.value.code == "KEY_REVOKED"


def test_keys_that_are_revoked_while_they_enrol_do_not_stand(
    coordinator: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the keys and the entry."""
    early, folder = coordinator.token("north", pb.ROLE_SITE), tmp_path / "identities" / "north"
    coordinator.join("north", pb.ROLE_SITE)
    coordinator.run_out(folder)

    def look(_reader: Reader, said: pb.ParticipantEnrolled) -> None:
        gone = pb.ParticipantRevoked(name=said.name, reason="stolen")
        coordinator.operator.state(gone)

    monkeypatch.setattr(authority, "check_keys", look)
    with pytest.raises(Refusal) as caught:
        client.enrol(early, folder)
    assert caught.value.code == "KEY_REVOKED"


def test_a_token_that_renews_lets_nobody_in_once_the_name_is_revoked(
    coordinator: World, tmp_path: Path
) -> None:
    """Whoever stole it with the disk has keys of their own."""
    coordinator.join("north", pb.ROLE_SITE)
    token = coordinator.token("north", pb.ROLE_SITE, renews=True)
    name = "spiffe://test/site/north"
    coordinator.operator.state(pb.ParticipantRevoked(name=name, reason="stolen disk and token"))
    assert enrol_refused(token, tmp_path / "thief") == "ALREADY_REVOKED"
    coordinator.folder = tmp_path / "anew"
    anew = coordinator.join("north", pb.ROLE_SITE)
    assert anew.registry.GetCaller(reg.GetCallerRequest()).name == name
    with contextlib.closing(Store(coordinator.settings.store_url)) as store:
        assert check_store(store, signatures=True).differences == []


def test_a_token_renews_who_is_there_and_in_the_same_role(coordinator: World) -> None:
    mona = coordinator.join("mona", pb.ROLE_PERSON)
    for name, role, code in (
        ("nobody", pb.ROLE_PERSON, "PARTICIPANT_NOT_FOUND"),
        (mona.identity.short_name, pb.ROLE_OPERATOR, "TOKEN_ROLE"),
    ):
        with pytest.raises(Refusal) as caught:
            coordinator.token(name, role, renews=True)
        assert caught.value.code == code


@pytest.mark.parametrize("text", ["", "hello", "hc1.", "hc1.AAAA", "hc1.%%%"])
def test_what_is_no_token_is_named_so(text: str, tmp_path: Path) -> None:
    assert enrol_refused(text, tmp_path / "x") == "TOKEN_MALFORMED"


def test_only_operators_issue_tokens(coordinator: World) -> None:
    mona = coordinator.join("mona", pb.ROLE_PERSON)
    coordinator.parties["olga"], olga = mona, coordinator.parties["olga"]
    with pytest.raises(Refusal) as caught:
        coordinator.token("evil", pb.ROLE_OPERATOR)
    coordinator.parties["olga"] = olga
    assert caught.value.code == "METHOD_NOT_ALLOWED"


def test_whoever_is_no_operator_any_more_states_nothing_as_one(coordinator: World) -> None:
    """Enrolled anew as a person while a call of the operator waits: a replay sees a person."""
    mona = coordinator.join("mona", pb.ROLE_PERSON)
    was = Caller(mona.name, CallerRole.OPERATOR, "", datetime.now(UTC))
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    new = tokens.new_token("spiffe://test/site/north", pb.ROLE_SITE, expires_at)
    with contextlib.closing(Store(coordinator.settings.store_url)) as store:
        with Notary(store, coordinator.house.ledger) as notary, pytest.raises(Refusal) as caught:
            notary.append(new.envelope(mona.identity.signing_key), was)
        assert caught.value.code == "NOT_ENTITLED"
        assert check_store(store).differences == []


def test_renewal_keeps_name_and_key(coordinator: World, tmp_path: Path) -> None:
    party = coordinator.join("north", pb.ROLE_SITE)
    renewed = client.renew(party.identity, tmp_path / "identities" / "north")
    assert renewed.certificate.serial_number != party.identity.certificate.serial_number
    with client.connect(renewed) as channel:
        party.channel.close()
        party.channel = channel
        assert party.registry.GetCaller(reg.GetCallerRequest()).name == party.name
