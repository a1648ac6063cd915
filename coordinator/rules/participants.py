"""When are statements about people, sites and their join tokens acceptable."""

from __future__ import annotations

from datetime import UTC, timedelta

from coordinator.caller import ROLES, CallerRole
from coordinator.ledger import predicate_of
from coordinator.models import JoinToken, Participant
from coordinator.rules.fact import Effect, Fact, conflict, invalid, not_entitled, require_role
from coordinator.store import Reader, Writer
from housecall.errors import Kind, Refusal
from housecall.identity import spiffe_id, split_id
from housecall.v1 import statements_pb2 as pb

LONGEST_TOKEN = timedelta(days=30)
ED25519_KEY_BYTES = 32


def token_issued(writer: Writer, said: pb.JoinTokenIssued, fact: Fact) -> Effect:
    """Operators issue tokens for names that nobody holds, or for those who do, to renew."""
    require_role(fact, CallerRole.OPERATOR)
    if said.role not in ROLES:
        raise invalid("TOKEN_ROLE", "role: expected site, person or operator")
    _check_name(said.name, said.role, fact.caller.name)
    expires_at = said.expires_at.ToDatetime(UTC)
    if not fact.at < expires_at <= fact.at + LONGEST_TOKEN:
        raise invalid(
            "TOKEN_EXPIRY",
            f"join token expires at {expires_at.isoformat()}: expected between now and "
            f"{LONGEST_TOKEN.days} days from now; is this machine's clock right?",
        )
    if said.renews:
        _check_stands(writer, said)
    else:
        _check_free(writer, said.name)
    if writer.find(JoinToken, said.token_id):
        raise conflict("TOKEN_EXISTS", f"join token {said.token_id} was issued before")
    writer.add(
        JoinToken(
            token_id=said.token_id,
            name=said.name,
            role=said.role,
            expires_at=expires_at,
            issued_index=fact.index,
        )
    )
    return Effect(said.token_id)


def token_revoked(writer: Writer, said: pb.JoinTokenRevoked, fact: Fact) -> Effect:
    require_role(fact, CallerRole.OPERATOR)
    token = writer.get(JoinToken, said.token_id, "join token")
    if token.used_index is not None:
        raise conflict(
            "TOKEN_USED",
            f"join token {said.token_id} was used by {token.name}: revoke the participant instead "
            f"(`housecall admin revoke {token.name}`)",
        )
    token.revoked_index = fact.index
    writer.add(token)
    return Effect(token.token_id)


def enrolled(writer: Writer, said: pb.ParticipantEnrolled, fact: Fact) -> Effect:
    """A joiner introduces the key that signs this very statement, once, as its token says. Where
    that key stands already nothing changes but that it gets a certificate; a token that renews is
    good for no other."""
    require_role(fact, CallerRole.JOINER)
    token = writer.get(JoinToken, said.token_id, "join token")
    _check_open(token, fact)
    if fact.caller.name.rpartition("/")[2] != said.token_id:
        raise not_entitled(fact, f"its certificate is of another token than {said.token_id}")
    if (said.name, said.role) != (token.name, token.role):
        raise not_entitled(fact, f"the token is for {token.name}, not for {said.name}")
    if _stands(writer, said):
        token.used_index = fact.index
        writer.add(token)
        return Effect(said.name)
    _check_free(writer, said.name)
    if fact.is_new:
        check_keys(writer, said)
    _check_lets_in(writer, token)
    if len(said.signing_key) != ED25519_KEY_BYTES:
        raise invalid("SIGNING_KEY_INVALID", "signing_key: expected a raw Ed25519 key, 32 bytes")
    row = writer.find(Participant, said.name) or Participant(
        name=said.name, role=said.role, signing_key=b"", tls_key_digest="", enrolled_index=0
    )
    row.role, row.signing_key, row.tls_key_digest = said.role, said.signing_key, said.tls_key_digest
    row.enrolled_index, row.revoked_index = fact.index, None
    token.used_index = fact.index
    writer.add(token, row)
    return Effect(said.name)


def check_keys(reader: Reader, said: pb.ParticipantEnrolled) -> None:
    """Refuses keys that its name had and has no more. An earlier version took them, and its
    entries replay."""
    held = reader.find(Participant, said.name)
    if held is None:
        return
    stands = held.revoked_index is None
    for index in reader.enrolments(said.name):
        had: pb.ParticipantEnrolled = predicate_of(reader.entry(index))
        if stands and had.signing_key == held.signing_key:
            continue
        if said.signing_key == had.signing_key or said.tls_key_digest == had.tls_key_digest:
            raise Refusal(
                Kind.NOT_ALLOWED,
                "KEY_REVOKED",
                f"{said.name}: expected new keys, got those that were revoked; move the identity "
                "folder away and enrol again",
            )


def revoked(writer: Writer, said: pb.ParticipantRevoked, fact: Fact) -> Effect:
    """Operators revoke; everybody may revoke themselves."""
    if fact.caller.name != said.name:
        require_role(fact, CallerRole.OPERATOR)
    participant = writer.participant(said.name)
    if split_id(said.name)[1] == "coordinator" or participant.revoked_index is not None:
        raise conflict("ALREADY_REVOKED", f"{said.name} is revoked or cannot be")
    participant.revoked_index = fact.index
    writer.add(participant)
    return Effect(said.name)


def _check_name(name: str, role: int, issuer: str) -> None:
    trust_domain, kind, short = split_id(name)
    expected = "site" if role == pb.ROLE_SITE else "person"
    if trust_domain != split_id(issuer)[0] or kind != expected or not short:
        raise invalid(
            "NAME_INVALID",
            f"{name}: expected {spiffe_id(split_id(issuer)[0], expected, 'name')} for this role",
        )


def _stands(writer: Writer, said: pb.ParticipantEnrolled) -> bool:
    """With this very role and these very keys."""
    holder = writer.find(Participant, said.name)
    if holder is None or holder.revoked_index is not None:
        return False
    held = (holder.role, holder.signing_key, holder.tls_key_digest)
    return held == (said.role, said.signing_key, said.tls_key_digest)


def _check_lets_in(writer: Writer, token: JoinToken) -> None:
    """One that renews is good for the keys that stand, and for nothing once they do not."""
    issued: pb.JoinTokenIssued = predicate_of(writer.entry(token.issued_index))
    if issued.renews:
        raise conflict(
            "ALREADY_REVOKED",
            f"{token.name} is revoked, and join token {token.token_id} only renews: ask the "
            "operator for one that does not",
        )


def _check_stands(writer: Writer, said: pb.JoinTokenIssued) -> None:
    holder = writer.participant(said.name)
    if holder.revoked_index is not None:
        raise conflict(
            "ALREADY_REVOKED",
            f"{said.name} is revoked, and its keys stay so: make a join token that does not renew",
        )
    if holder.role != said.role:
        raise invalid(
            "TOKEN_ROLE",
            f"role: expected the one that {said.name} has, got {pb.Role.Name(said.role)}",
        )


def _check_free(writer: Writer, name: str) -> None:
    """A name is free until it is enrolled, and again once that participant was revoked."""
    holder = writer.find(Participant, name)
    if holder is not None and holder.revoked_index is None:
        raise conflict(
            "NAME_TAKEN",
            f"{name} is enrolled already, with other keys: choose another name, or revoke it first "
            "to enrol it anew; where its certificate ran out, make a join token that renews",
        )


def _check_open(token: JoinToken, fact: Fact) -> None:
    problem = None
    if token.revoked_index is not None:
        problem = ("TOKEN_REVOKED", "was revoked")
    elif token.used_index is not None:
        problem = ("TOKEN_USED", "was used")
    elif token.expires_at <= fact.at:
        problem = ("TOKEN_EXPIRED", f"expired at {token.expires_at.isoformat()}")
    if problem:
        raise Refusal(
            Kind.NOT_ALLOWED,
            problem[0],
            f"join token {token.token_id} for {token.name} {problem[1]}: ask the operator for a "
            "new one",
        )
