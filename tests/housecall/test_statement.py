"""Statements and envelopes: what is signed is what is stated, and nothing else verifies."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from housecall import statement
from housecall.errors import Refusal
from housecall.v1 import statements_pb2 as pb

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
SUBJECT = {"dataset north/1": statement.digest(b"x")}


def result() -> pb.ResultSubmitted:
    said = pb.ResultSubmitted(benchmark_id=1, dataset_id="north/1")
    said.metrics.update({"b": 12.0, "a": {"value": 0.5, "low": 0.25}, "n": [1, 2.5]})
    return said


def test_the_payload_states_everything_sorted_and_whole() -> None:
    body = json.loads(statement.build(result(), SUBJECT))
    assert body["_type"] == "https://in-toto.io/Statement/v1"
    assert body["predicateType"] == "urn:housecall:v1:ResultSubmitted"
    predicate = body["predicate"]
    assert predicate["partial"] is False
    assert predicate["executionId"] == 0
    assert (
        json.dumps(predicate["metrics"])
        == '{"a": {"low": 0.25, "value": 0.5}, "b": 12, "n": [1, 2.5]}'
    )


def test_the_same_statement_makes_the_same_bytes() -> None:
    payloads = {statement.build(result(), SUBJECT) for _ in range(20)}
    assert len(payloads) == 1
    envelopes = {statement.sign(payload, KEY) for payload in payloads for _ in range(5)}
    assert len(envelopes) == 1


def test_what_was_signed_verifies_and_opens() -> None:
    payload = statement.build(result(), SUBJECT)
    opened = statement.verify(statement.sign(payload, KEY), PUBLIC)
    assert opened.payload == payload
    assert opened.subjects == SUBJECT
    assert opened.predicate == result()


def test_dsse_signs_the_pre_authentication_encoding() -> None:
    """DSSE v1.0: "DSSEv1" SP len(type) SP type SP len(body) SP body."""
    payload = statement.build(result(), SUBJECT)
    envelope = json.loads(statement.sign(payload, KEY))
    kind = b"application/vnd.in-toto+json"
    encoded = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    KEY.public_key().verify(signature, encoded)


def change(envelope: bytes, **fields: object) -> bytes:
    return json.dumps({**json.loads(envelope), **fields}).encode()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda e: e[:-1], "STATEMENT_MALFORMED"),
        (lambda e: b"[]", "STATEMENT_MALFORMED"),
        (lambda e: b"x" * (2 << 20), "STATEMENT_MALFORMED"),
        (lambda e: change(e, payloadType="text/plain"), "STATEMENT_MALFORMED"),
        (lambda e: change(e, payload="%%%"), "STATEMENT_MALFORMED"),
        (lambda e: change(e, signatures=[]), "STATEMENT_MALFORMED"),
        (lambda e: e + b" ", "STATEMENT_MALFORMED"),
        (lambda e: change(e, extra=1), "STATEMENT_MALFORMED"),
        (lambda e: b"[" * 200_000, "STATEMENT_MALFORMED"),
        (lambda e: change(e, signatures=[{"keyid": "00", "sig": "AA=="}]), "SIGNER_UNEXPECTED"),
        (
            lambda e: change(e, payload=base64.b64encode(other_payload()).decode()),
            "SIGNATURE_INVALID",
        ),
    ],
)
def test_what_was_changed_is_refused(spoil: object, code: str) -> None:
    envelope = statement.sign(statement.build(result(), SUBJECT), KEY)
    with pytest.raises(Refusal) as caught:
        statement.verify(spoil(envelope), PUBLIC)  # type: ignore[operator]
    assert caught.value.code == code


def test_what_is_inside_is_not_read_before_the_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    envelope = statement.sign(b"[" * 1000, Ed25519PrivateKey.generate())
    monkeypatch.setattr(statement, "open_payload", None)
    with pytest.raises(Refusal) as caught:
        statement.verify(envelope, PUBLIC)
    assert caught.value.code == "SIGNER_UNEXPECTED"


def other_payload() -> bytes:
    said = result()
    said.partial = True
    return statement.build(said, SUBJECT)


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b'{"_type": "https://in-toto.io/Statement/v1", "subject": [], "predicateType": '
        b'"urn:housecall:v1:Nonsense", "predicate": {}}',
        b'{"_type": "https://in-toto.io/Statement/v1", "subject": [], "predicateType": '
        b'"urn:housecall:v1:ModelRegistered", "predicate": {"colour": "blue"}}',
        b'{"_type": "https://in-toto.io/Statement/v1", "subject": [], "predicateType": '
        b'"urn:housecall:v1:ModelRegistered", "predicate": {"name": "a", "name": "b"}}',
        b'{"_type": "https://in-toto.io/Statement/v1", "subject": [], "predicateType": '
        b'"urn:housecall:v1:ExecutionEnded", "predicate": {"execution_id": 3}}',
        b'{"_type": "other", "subject": [], "predicateType": '
        b'"urn:housecall:v1:ModelRegistered", "predicate": {}}',
    ],
)
def test_an_unknown_statement_is_refused_even_when_signed(payload: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        statement.verify(statement.sign(payload, KEY), PUBLIC)
    assert caught.value.code == "STATEMENT_MALFORMED"


def test_a_containers_digest_covers_each_part() -> None:
    parts = ["sha256:1", "configuration", "parameters", "sha256:2"]
    digests = {statement.container_digest(*parts)}
    for place in range(4):
        changed = list(parts)
        changed[place] += "x"
        digests.add(statement.container_digest(*changed))
    assert len(digests) == 5
