"""What was agreed, as this site can check it: typed reads from the coordinator.

What an execution depends on is not believed but verified, and kept so that it needs no
coordinator once it is known:

 1. the bundle of the statement holds against the ledger's pinned key, and its envelope is the
    one that the coordinator named;
 2. what the coordinator showed is exactly the statement's predicate;
 3. a container's digest is that of its parts, and the pinned one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from agent.identity import Uplink
from agent.journal import Journal
from housecall.errors import Kind, Refusal
from housecall.rpc import CALL_SECONDS
from housecall.statement import container_digest, digest
from housecall.v1 import ledger_pb2, ledger_pb2_grpc, registry_pb2, registry_pb2_grpc
from housecall.v1 import statements_pb2 as pb
from housecall.verify import Verified, verify_bundle

M = TypeVar("M", bound=Message)
Shown = registry_pb2.Benchmark | registry_pb2.Container | registry_pb2.Model


@dataclass(frozen=True)
class Container:
    id: int
    digest: str
    owner: str
    statement: pb.ContainerRegistered


@dataclass(frozen=True)
class Benchmark:
    """`digest` is that of the envelope which registered it."""

    id: int
    digest: str
    owner: str
    statement: pb.BenchmarkRegistered


@dataclass(frozen=True)
class Model:
    id: int
    name: str
    owner: str
    container: pb.Pin


@dataclass(frozen=True)
class Association:
    id: int
    benchmark_id: int
    dataset_id: str
    state: str
    envelope_digest: str


class Registry:
    """Reads over the site's own channel; results are kept in the journal's blobs."""

    def __init__(self, uplink: Uplink, journal: Journal) -> None:
        self._uplink = uplink
        self._journal = journal

    def benchmark(self, number: int) -> Benchmark:
        request = registry_pb2.GetBenchmarkRequest(id=number)
        found = self._kept(
            f"benchmark:{number}",
            registry_pb2.GetBenchmarkResponse,
            lambda: self._stub.GetBenchmark(request, timeout=CALL_SECONDS),
            lambda answer: self._check(number, answer.benchmark),
        )
        shown = found.benchmark
        return Benchmark(
            shown.id, shown.origin.envelope_digest, shown.origin.owner, shown.statement
        )

    def container(self, number: int, pinned: str = "") -> Container:
        """The container `number`, whose digest must be `pinned` if that is given."""
        request = registry_pb2.GetContainerRequest(id=number)
        found = self._kept(
            f"container:{number}",
            registry_pb2.GetContainerResponse,
            lambda: self._stub.GetContainer(request, timeout=CALL_SECONDS),
            lambda answer: self._check(number, answer.container),
        )
        shown = found.container
        _check_digest(shown, pinned)  # 3
        return Container(
            shown.id, shown.statement.container_digest, shown.origin.owner, shown.statement
        )

    def model(self, number: int) -> Model:
        request = registry_pb2.GetModelRequest(id=number)
        found = self._kept(
            f"model:{number}",
            registry_pb2.GetModelResponse,
            lambda: self._stub.GetModel(request, timeout=CALL_SECONDS),
            lambda answer: self._check(number, answer.model),
        )
        return self._model(found.model)

    def approved_models(self, benchmark_id: int) -> list[Model]:
        """The reference model first; as last heard when the coordinator is away."""
        request = registry_pb2.GetBenchmarkRequest(id=benchmark_id)
        found = self._newest(
            f"models:{benchmark_id}",
            registry_pb2.GetBenchmarkResponse,
            lambda: self._stub.GetBenchmark(request, timeout=CALL_SECONDS),
        )
        return [self._model(model) for model in found.models]

    def associations(self, benchmark_id: int, dataset_id: str) -> list[Association]:
        """Oldest first; as last heard when the coordinator is away."""
        request = registry_pb2.ListAssociationsRequest(
            benchmark_id=benchmark_id, dataset_id=dataset_id, page_size=1000
        )
        found = self._newest(
            f"associations:{benchmark_id}:{dataset_id}",
            registry_pb2.ListAssociationsResponse,
            lambda: self._all_associations(request),
        )
        return [_association(each) for each in found.associations]

    def _all_associations(
        self, request: registry_pb2.ListAssociationsRequest
    ) -> registry_pb2.ListAssociationsResponse:
        """Of every page."""
        found = registry_pb2.ListAssociationsResponse()
        while True:
            page = self._stub.ListAssociations(request, timeout=CALL_SECONDS)
            found.associations.extend(page.associations)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    def association(self, number: int) -> Association:
        with self._uplink.identity.refusals():
            found = self._stub.GetAssociation(
                registry_pb2.GetAssociationRequest(id=number), timeout=CALL_SECONDS
            )
        return _association(found.association)

    def bundle(self, envelope_digest: str) -> ledger_pb2.Bundle:
        """A verified bundle, fetched once."""
        request = ledger_pb2.GetBundleRequest(envelope_digest=envelope_digest)
        stub = ledger_pb2_grpc.LedgerStub(self._uplink.channel)
        found = self._kept(
            f"bundle:{envelope_digest}",
            ledger_pb2.GetBundleResponse,
            lambda: stub.GetBundle(request, timeout=CALL_SECONDS),
            lambda answer: self._check_bundle(answer.bundle, envelope_digest),
        )
        self._check_bundle(found.bundle, envelope_digest)
        return found.bundle

    def _check_bundle(self, bundle: ledger_pb2.Bundle, envelope_digest: str) -> None:
        verify_bundle(bundle, self._uplink.identity.verifier_key)
        if digest(bundle.statement.envelope) != envelope_digest:
            raise _untrue(f"bundle of {envelope_digest}", "that envelope", "another one")

    def _check(self, number: int, shown: Shown) -> None:
        """Before it is kept: the number asked for, and what was signed."""
        if shown.id != number:
            raise _untrue(f"number {number}", "that one", str(shown.id))
        self._verify(shown.origin, shown.statement)  # 1, 2

    @property
    def _stub(self) -> registry_pb2_grpc.RegistryStub:
        return registry_pb2_grpc.RegistryStub(self._uplink.channel)

    def _kept(
        self, name: str, kind: type[M], fetch: Callable[[], M], check: Callable[[M], None]
    ) -> M:
        """What never changes: from the journal if it is there; kept once it was checked."""
        known = self._journal.blob(name)
        if known is not None:
            return kind.FromString(known)
        with self._uplink.identity.refusals():
            fresh = fetch()
        check(fresh)
        self._journal.set_blob(name, fresh.SerializeToString())
        return fresh

    def _newest(self, name: str, kind: type[M], fetch: Callable[[], M]) -> M:
        """What may change: from the coordinator, or as last heard when it is away."""
        try:
            return self._fetched(name, fetch)
        except Refusal as refusal:
            known = self._journal.blob(name)
            if refusal.kind is not Kind.UNAVAILABLE or known is None:
                raise
            return kind.FromString(known)

    def _fetched(self, name: str, fetch: Callable[[], M]) -> M:
        with self._uplink.identity.refusals():
            fresh = fetch()
        self._journal.set_blob(name, fresh.SerializeToString())
        return fresh

    def _model(self, shown: registry_pb2.Model) -> Model:
        self._verify(shown.origin, shown.statement)
        return Model(shown.id, shown.statement.name, shown.origin.owner, shown.statement.container)

    def _verify(self, origin: registry_pb2.Origin, shown: Message) -> None:
        bundle = self.bundle(origin.envelope_digest)  # 1
        verified = verify_bundle(bundle, self._uplink.identity.verifier_key)
        require_same_person(self._journal, verified)
        if verified.signer != origin.owner:
            raise _untrue(origin.envelope_digest, f"owner {verified.signer}", origin.owner)
        if verified.statement.predicate != shown:  # 2
            kind = verified.statement.kind
            raise _untrue(origin.envelope_digest, f"the signed {kind}", "other content")


def require_same_person(journal: Journal, verified: Verified) -> None:
    """The first enrolment of a name that this site saw is trusted; another one only once a person
    here said so: a coordinator could have made it up."""
    trusted = journal.trusted(verified.signer)
    if not trusted:
        journal.trust(verified.signer, verified.enrolment_digest)
    elif verified.enrolment_digest not in trusted:
        raise Refusal(
            Kind.NOT_ALLOWED,
            "SIGNER_CHANGED",
            f"{verified.signer}: expected the enrolment seen before, got "
            f"{verified.enrolment_digest}; ask them, by another way, whether they enrolled anew, "
            f"and then `housecall-agent trust {verified.signer} {verified.enrolment_digest}`",
        )


def _check_digest(shown: registry_pb2.Container, pinned: str) -> None:
    stated = shown.statement
    computed = container_digest(
        stated.image_digest,
        stated.configuration,
        stated.parameters,
        stated.additional_files.digest,
    )
    for expected, got in ((computed, stated.container_digest), (pinned or computed, computed)):
        if expected != got:
            raise Refusal(
                Kind.CONFLICT,
                "CONTAINER_DIGEST_DIFFERS",
                f"container {shown.id}: expected {expected}, got {got}; "
                "ask its owner which one is meant",
            )


def _association(shown: registry_pb2.Association) -> Association:
    state = registry_pb2.AssociationState.Name(shown.state).removeprefix("ASSOCIATION_STATE_")
    return Association(
        shown.id, shown.benchmark_id, shown.dataset_id, state, shown.origin.envelope_digest
    )


def _untrue(what: str, expected: str, got: str) -> Refusal:
    return Refusal(
        Kind.CONFLICT,
        "REGISTRY_UNTRUE",
        f"{what}: expected {expected}, got {got}: the coordinator shows what was never signed; "
        "keep its answer as evidence and tell the operator",
    )
