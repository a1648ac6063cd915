"""Checking receipts and bundles with nothing but bytes and the ledger's verifier key.

A bundle is verified in these steps, cited below:
 1. the checkpoint is signed by the ledger's key;
 2. the statement's envelope is in the checkpoint's tree at its index;
 3. the enrolment's envelope is in the same tree, before the statement;
 4. the enrolment is signed by the very key that it introduces;
 5. the statement is signed by that key.
"""

from __future__ import annotations

from dataclasses import dataclass

from housecall import merkle, statement
from housecall.errors import Kind, Refusal
from housecall.note import Checkpoint, NoteError, open_checkpoint
from housecall.v1 import ledger_pb2
from housecall.v1 import statements_pb2 as pb


@dataclass(frozen=True)
class Verified:
    """A statement that holds, who made it, and where it stands in the ledger."""

    statement: statement.Statement
    signer: str
    ledger_index: int
    checkpoint: Checkpoint
    enrolment_digest: str


def check_checkpoint(text: str, verifier_key: str) -> Checkpoint:
    try:
        return open_checkpoint(text, verifier_key)
    except NoteError as error:
        raise Refusal(
            Kind.INVALID,
            "CHECKPOINT_INVALID",
            f"the checkpoint is not signed by the ledger's pinned key: {error}",
        ) from error


def check_receipt(envelope: bytes, receipt: ledger_pb2.Receipt, verifier_key: str) -> Checkpoint:
    """Steps 1 and 2 for a receipt of `envelope`."""
    checkpoint = check_checkpoint(receipt.checkpoint, verifier_key)
    _check_inclusion(envelope, receipt.ledger_index, list(receipt.inclusion_proof), checkpoint)
    return checkpoint


def check_consistency(
    old_text: str, new_text: str, proof: list[bytes], verifier_key: str
) -> Checkpoint:
    """The newer checkpoint's tree begins with the older one's, entry by entry."""
    old, new = (check_checkpoint(text, verifier_key) for text in (old_text, new_text))
    try:
        merkle.verify_consistency(old.size, new.size, old.root, new.root, proof)
    except merkle.ProofError as error:
        raise Refusal(
            Kind.INVALID,
            "LEDGER_REWRITTEN",
            f"the ledger of size {new.size} does not continue the one of size {old.size} seen "
            f"before: its history was changed ({error}). Keep both checkpoints as evidence",
        ) from error
    return new


def verify_bundle(bundle: ledger_pb2.Bundle, verifier_key: str) -> Verified:
    """All five steps. Raises Refusal naming the step that failed."""
    checkpoint = check_checkpoint(bundle.checkpoint, verifier_key)  # 1
    entry, enrolment = bundle.statement, bundle.enrolment
    for item in (entry, enrolment):  # 2, 3
        _check_inclusion(item.envelope, item.ledger_index, list(item.inclusion_proof), checkpoint)
    if enrolment.ledger_index > entry.ledger_index:  # 3
        raise Refusal(
            Kind.INVALID, "BUNDLE_INVALID", "the signer was enrolled after this statement"
        )
    introduced = statement.unverified(enrolment.envelope).predicate
    if not isinstance(introduced, pb.ParticipantEnrolled):
        raise Refusal(
            Kind.INVALID,
            "BUNDLE_INVALID",
            f"expected a ParticipantEnrolled as enrolment, got {introduced.DESCRIPTOR.name}",
        )
    if checkpoint.origin != verifier_key.partition("+")[0]:
        raise Refusal(Kind.INVALID, "BUNDLE_INVALID", f"a ledger called {checkpoint.origin}")
    statement.verify(enrolment.envelope, introduced.signing_key)  # 4
    opened = statement.verify(entry.envelope, introduced.signing_key)  # 5
    return Verified(
        opened,
        introduced.name,
        entry.ledger_index,
        checkpoint,
        statement.digest(enrolment.envelope),
    )


def _check_inclusion(
    envelope: bytes, index: int, proof: list[bytes], checkpoint: Checkpoint
) -> None:
    leaf = merkle.leaf_hash(envelope)
    try:
        merkle.verify_inclusion(leaf, index, checkpoint.size, proof, checkpoint.root)
    except merkle.ProofError as error:
        raise Refusal(
            Kind.INVALID,
            "NOT_IN_LEDGER",
            f"{statement.digest(envelope)} is not entry {index} of the ledger: {error}",
        ) from error
