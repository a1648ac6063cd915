"""Statements: build, sign, open and verify in-toto Statements v1 in DSSE envelopes.

A statement's predicate is a message of `protos/housecall/v1/statements.proto` in proto3 JSON; its
type is `urn:housecall:v1:<message name>`. The envelope's JSON bytes are what the ledger keeps and
hashes: they are passed on verbatim and never made again from their parts.

Sources: in-toto attestation framework v1 (Statement), DSSE v1.0 (envelope, PAE).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from google.protobuf import json_format
from google.protobuf.message import Message

from housecall.errors import Kind, Refusal
from housecall.v1 import statements_pb2 as pb

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
TYPE_PREFIX = "urn:housecall:v1:"
MAX_ENVELOPE_BYTES = 1024 * 1024

KINDS: dict[str, type[Message]] = {
    kind.DESCRIPTOR.name: kind
    for kind in (
        pb.JoinTokenIssued,
        pb.JoinTokenRevoked,
        pb.ParticipantEnrolled,
        pb.ParticipantRevoked,
        pb.ContainerRegistered,
        pb.BenchmarkRegistered,
        pb.BenchmarkPolicyChanged,
        pb.ModelRegistered,
        pb.DatasetRegistered,
        pb.DatasetOperational,
        pb.AssociationRequested,
        pb.AssociationDecided,
        pb.AssociationWithdrawn,
        pb.ExecutionRequested,
        pb.ExecutionCancelled,
        pb.ExecutionEnded,
        pb.ResultSubmitted,
    )
}


def digest(data: bytes) -> str:
    """`sha256:<hex>` of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def key_id(public_key: bytes) -> str:
    """Hex SHA-256 of a raw Ed25519 public key, as DSSE's `keyid`."""
    return hashlib.sha256(public_key).hexdigest()


def container_digest(
    image_digest: str, configuration: str, parameters: str, additional_files_digest: str
) -> str:
    """The one identity of a container: SHA-256 over a canonical JSON list of its parts' digests."""
    parts = [
        image_digest,
        digest(configuration.encode()),
        digest(parameters.encode()) if parameters else "",
        additional_files_digest,
    ]
    return digest(json.dumps(parts, separators=(",", ":")).encode())


@dataclass(frozen=True)
class Statement:
    """An opened statement. `envelope_digest` names it everywhere."""

    kind: str
    predicate: Message
    subjects: Mapping[str, str]
    payload: bytes
    key_id: str
    envelope_digest: str


def build(predicate: Message, subjects: Mapping[str, str]) -> bytes:
    """The payload to be shown and signed. `subjects` maps names to `sha256:...` digests."""
    body = {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": value.removeprefix("sha256:")}}
            for name, value in subjects.items()
        ],
        "predicateType": TYPE_PREFIX + predicate.DESCRIPTOR.name,
        "predicate": _predicate_json(predicate),
    }
    return json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False).encode()


def sign(payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """The DSSE envelope of a payload, as JSON bytes."""
    signature = key.sign(_pae(payload))
    public = key.public_key().public_bytes_raw()
    return _envelope(payload, key_id(public), signature)


def _envelope(payload: bytes, signer: str, signature: bytes) -> bytes:
    """The one spelling of an envelope: another one would be another leaf for the same statement."""
    return json.dumps(
        {
            "payloadType": PAYLOAD_TYPE,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [{"keyid": signer, "sig": base64.b64encode(signature).decode()}],
        }
    ).encode()


def _loads(text: bytes) -> Any:
    """JSON without repeated keys, NaN and infinity."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a key is repeated")
        return dict(pairs)

    def never(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, object_pairs_hook=once, parse_constant=never)


def _check_spelling(body: Any, descriptor: Any) -> None:
    """Every field by its JSON name: proto3 JSON reads a second spelling, readers of JSON do not."""
    if not isinstance(body, dict) or descriptor.full_name.startswith("google.protobuf."):
        return
    fields = {field.json_name: field for field in descriptor.fields}
    for name, value in body.items():
        if name not in fields:
            raise ValueError(f"expected the JSON name of a field, got {name}")
        if fields[name].message_type:
            for item in value if isinstance(value, list) else [value]:
                _check_spelling(item, fields[name].message_type)


def open_payload(payload: bytes) -> tuple[str, Message, dict[str, str]]:
    """(kind, predicate, subjects) of a payload; refuses what is not a known statement."""
    try:
        body = _loads(payload)
        if body.keys() != {"_type", "subject", "predicateType", "predicate"}:
            raise ValueError("expected a statement's four keys and no others")
        kind = body["predicateType"].removeprefix(TYPE_PREFIX)
        subjects = {s["name"]: "sha256:" + s["digest"]["sha256"] for s in body["subject"]}
        if body["_type"] != STATEMENT_TYPE or body["predicateType"] != TYPE_PREFIX + kind:
            raise ValueError(f"expected {STATEMENT_TYPE} with a {TYPE_PREFIX} predicate")
        predicate = json_format.ParseDict(body["predicate"], KINDS[kind]())
        _check_spelling(body["predicate"], predicate.DESCRIPTOR)
    except KeyError as error:
        raise _malformed(f"unknown or missing {error}") from error
    except (ValueError, TypeError, AttributeError, RecursionError, json_format.ParseError) as error:
        raise _malformed(str(error)) from error
    return kind, predicate, subjects


def unverified(envelope: bytes) -> Statement:
    """Open an envelope without checking its signature: to learn whose key to check it with."""
    return unwrap(envelope).open()


def verify(envelope: bytes, public_key: bytes) -> Statement:
    """Open an envelope that must be signed by the raw Ed25519 `public_key`."""
    wrapped = unwrap(envelope)
    wrapped.check(public_key)
    return wrapped.open()


@dataclass(frozen=True)
class Wrapped:
    """An envelope taken apart: what is inside was not read yet."""

    payload: bytes
    key_id: str
    signature: bytes
    envelope_digest: str

    def check(self, public_key: bytes) -> None:
        """Refuses what the raw Ed25519 `public_key` did not sign."""
        if self.key_id != key_id(public_key):
            raise Refusal(
                Kind.NOT_ALLOWED,
                "SIGNER_UNEXPECTED",
                f"the statement is signed by key {self.key_id[:16]}, expected "
                f"{key_id(public_key)[:16]}: sign it with the key that the caller enrolled",
            )
        try:
            signed = _pae(self.payload)
            Ed25519PublicKey.from_public_bytes(public_key).verify(self.signature, signed)
        except (InvalidSignature, ValueError):  # ValueError: not 32 bytes
            raise Refusal(
                Kind.INVALID,
                "SIGNATURE_INVALID",
                "the signature of the statement does not match its content: it was altered after "
                "signing, or signed by another key",
            ) from None

    def open(self) -> Statement:
        """The statement; it costs some seconds where somebody means it to."""
        kind, predicate, subjects = open_payload(self.payload)
        return Statement(kind, predicate, subjects, self.payload, self.key_id, self.envelope_digest)


def check_size(envelope: bytes) -> None:
    """Refuses an envelope that is larger than any may be."""
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise _malformed(f"expected at most {MAX_ENVELOPE_BYTES} bytes, got {len(envelope)}")


def unwrap(envelope: bytes) -> Wrapped:
    """Take an envelope apart; refuses any but the one canonical form."""
    check_size(envelope)
    try:
        body = _loads(envelope)
        if body["payloadType"] != PAYLOAD_TYPE:
            raise ValueError(f"expected payloadType {PAYLOAD_TYPE}, got {body['payloadType']}")
        (signature,) = body["signatures"]
        payload = base64.b64decode(body["payload"], validate=True)
        raw = base64.b64decode(signature["sig"], validate=True)
        signer = str(signature["keyid"])
    except KeyError as error:
        raise _malformed(f"missing {error}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _malformed(str(error)) from error
    if envelope != _envelope(payload, signer, raw):
        raise _malformed("the envelope is not in its one canonical form")
    return Wrapped(payload, signer, raw, digest(envelope))


def _pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _predicate_json(predicate: Message) -> dict[str, Any]:
    """proto3 JSON with nothing left out: a zero or a false is stated, not implied."""
    body = json_format.MessageToDict(predicate, always_print_fields_with_no_presence=True)
    for field in predicate.DESCRIPTOR.fields:
        if field.message_type and field.message_type.full_name == "google.protobuf.Struct":
            body[field.json_name] = tidy(body.get(field.json_name, {}))
    return body


def tidy(value: Any) -> Any:
    """A Struct's content, by key, and with the numbers that it holds as doubles written as they
    were: 12, not 12.0."""
    if isinstance(value, dict):
        return {key: tidy(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [tidy(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def _malformed(why: str) -> Refusal:
    return Refusal(
        Kind.INVALID,
        "STATEMENT_MALFORMED",
        f"expected a DSSE envelope with an in-toto statement that Housecall knows: {why}",
    )
