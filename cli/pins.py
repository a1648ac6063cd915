"""Things of the ledger pinned by the content that they have now, as their owners signed it.

What the coordinator shows is not believed but verified before it is pinned:

 1. it has the number that was asked for;
 2. its statement's bundle holds against the ledger's pinned key, and its envelope is the one that
    the coordinator named;
 3. the signer is the owner shown, and the signed predicate the statement shown;
 4. a container's digest is that of its parts.
"""

from __future__ import annotations

from cli.connect import End
from housecall.errors import Kind, Refusal
from housecall.v1 import ledger_pb2, registry_pb2
from housecall.v1 import statements_pb2 as pb
from housecall.v1.ledger_pb2_grpc import LedgerStub
from housecall.v1.registry_pb2_grpc import RegistryStub


def container_pin(end: End, container_id: int) -> pb.Pin:
    request = registry_pb2.GetContainerRequest(id=container_id)
    container = end.call(RegistryStub(end.channel).GetContainer, request).container
    what = f"container {container_id}"
    _check_number(what, container_id, container.id)  # 1
    _check_signed(end, what, container)  # 2, 3
    _check_parts(what, container.statement)  # 4
    return pb.Pin(id=container_id, digest=container.statement.container_digest)


def model_pin(end: End, model_id: int) -> pb.Pin:
    """A model's digest is its container's."""
    request = registry_pb2.GetModelRequest(id=model_id)
    model = end.call(RegistryStub(end.channel).GetModel, request).model
    _check_number(f"model {model_id}", model_id, model.id)  # 1
    return checked_model(end, model)


def checked_model(end: End, model: registry_pb2.Model) -> pb.Pin:
    """The pin of a model that was shown. Raises Refusal."""
    _check_signed(end, f"model {model.id}", model)  # 2, 3
    return pb.Pin(id=model.id, digest=model.statement.container.digest)


def _check_number(what: str, expected: int, got: int) -> None:
    if got != expected:
        raise _untrue(what, f"number {expected}", str(got))


def _check_signed(end: End, what: str, shown: registry_pb2.Container | registry_pb2.Model) -> None:
    from housecall.verify import verify_bundle

    origin = shown.origin
    request = ledger_pb2.GetBundleRequest(envelope_digest=origin.envelope_digest)
    bundle = end.call(LedgerStub(end.channel).GetBundle, request).bundle
    verified = verify_bundle(bundle, end.verifier_key)  # 2
    signed = verified.statement
    if signed.envelope_digest != origin.envelope_digest:
        raise _untrue(what, f"envelope {origin.envelope_digest}", signed.envelope_digest)
    if verified.signer != origin.owner:  # 3
        raise _untrue(what, f"owner {verified.signer}", origin.owner)
    if signed.predicate != shown.statement:
        raise _untrue(what, f"the {signed.kind} that was signed", "other content")


def _check_parts(what: str, stated: pb.ContainerRegistered) -> None:
    from housecall.statement import container_digest

    computed = container_digest(
        stated.image_digest,
        stated.configuration,
        stated.parameters,
        stated.additional_files.digest,
    )
    if computed != stated.container_digest:
        raise _untrue(what, f"digest {computed} of its parts", stated.container_digest)


def _untrue(what: str, expected: str, got: str) -> Refusal:
    return Refusal(
        Kind.CONFLICT,
        "REGISTRY_UNTRUE",
        f"{what}: expected {expected}, got {got}: the coordinator shows what was never signed; "
        "keep its answer as evidence and tell the operator",
    )
