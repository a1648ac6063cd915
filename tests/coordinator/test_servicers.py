"""The unary servicers by grpcio-testing: translation and refusals without a network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc_testing
import pytest

from coordinator.caller import Caller, CallerRole, set_caller
from coordinator.fleet import Fleet
from coordinator.founding import House, found
from coordinator.notary import Notary
from coordinator.replicas import Replica, Replicas
from coordinator.servicers.authority import AuthorityServicer
from coordinator.servicers.ledger import LedgerServicer
from coordinator.servicers.registry import RegistryServicer
from coordinator.settings import Settings
from coordinator.store import Store
from housecall import verify
from housecall.errors import Refusal
from housecall.v1 import authority_pb2, ledger_pb2, registry_pb2

SERVICES = {
    "Ledger": ledger_pb2.DESCRIPTOR.services_by_name["Ledger"],
    "Registry": registry_pb2.DESCRIPTOR.services_by_name["Registry"],
    "Authority": authority_pb2.DESCRIPTOR.services_by_name["Authority"],
}


class AsCaller:
    """A servicer whose calls are made by `caller`, as the interceptor would have it."""

    def __init__(self, servicer: Any, caller: Caller) -> None:
        self._servicer = servicer
        self._caller = caller
        self.refused: Refusal | None = None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._servicer, name)

        def call(request: Any, context: Any) -> Any:
            set_caller(self._caller)
            try:
                return method(request, context)
            except Refusal as refusal:
                self.refused = refusal
                raise

        return call


class Bench:
    """One coordinator's servicers behind grpcio-testing's server."""

    def __init__(self, folder: Path, database_url: str) -> None:
        settings = Settings(state_dir=folder / "c", database_url=database_url)
        self.house: House = found(settings, "test", "127.0.0.1:1")
        self.store = Store(settings.store_url)
        self.caller = Caller(self.house.name, CallerRole.OPERATOR, "", datetime.now(UTC))

    @contextlib.contextmanager
    def servicer(self, service: str) -> Iterator[tuple[Any, AsCaller]]:
        ledger = self.house.ledger
        with Notary(self.store, ledger) as notary:
            authority = self.house.authority
            servicer: object = {
                "Ledger": LedgerServicer(self.store, ledger, notary),
                "Registry": RegistryServicer(
                    self.store, Fleet(), Replicas(Replica("one")), timedelta()
                ),
                "Authority": AuthorityServicer(self.store, ledger, notary, authority),
            }[service]
            wrapped = AsCaller(servicer, self.caller)
            server = grpc_testing.server_from_dictionary(
                {SERVICES[service]: wrapped}, grpc_testing.strict_real_time()
            )
            yield server, wrapped


@pytest.fixture
def bench(tmp_path: Path, database_url: str) -> Iterator[Bench]:
    made = Bench(tmp_path, database_url)
    yield made
    made.store.close()


def call(bench: Bench, service: str, method: str, request: Any) -> Any:
    """The response, or the refusal that the servicer raised."""
    with bench.servicer(service) as (server, wrapped):
        descriptor = SERVICES[service].methods_by_name[method]
        rpc = server.invoke_unary_unary(descriptor, (), request, None)
        response, _, _, _ = rpc.termination()
        return wrapped.refused or response


def test_the_founding_entry_is_proven(bench: Bench) -> None:
    response = call(bench, "Ledger", "GetBundle", ledger_pb2.GetBundleRequest(ledger_index=0))
    verified = verify.verify_bundle(response.bundle, bench.house.ledger.verifier_key)
    assert verified.signer == bench.house.name


def test_checkpoint_and_consistency(bench: Bench) -> None:
    response = call(bench, "Ledger", "GetCheckpoint", ledger_pb2.GetCheckpointRequest())
    assert verify.check_checkpoint(response.checkpoint, response.verifier_key).size == 1
    request = ledger_pb2.GetConsistencyProofRequest(old_size=5)
    refused = call(bench, "Ledger", "GetConsistencyProof", request)
    assert refused.code == "TREE_SIZE_INVALID"


def test_entries_are_listed_with_their_leaves(bench: Bench) -> None:
    response = call(bench, "Ledger", "ListEntries", ledger_pb2.ListEntriesRequest())
    assert response.tree_size == 1
    assert len(response.entries[0].leaf_hash) == 32
    assert response.entries[0].envelope


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        ("GetContainer", registry_pb2.GetContainerRequest(id=9), "CONTAINER_NOT_FOUND"),
        ("GetBenchmark", registry_pb2.GetBenchmarkRequest(id=9), "BENCHMARK_NOT_FOUND"),
        ("GetModel", registry_pb2.GetModelRequest(id=9), "MODEL_NOT_FOUND"),
        ("GetDataset", registry_pb2.GetDatasetRequest(id="n/9"), "DATASET_NOT_FOUND"),
        ("GetAssociation", registry_pb2.GetAssociationRequest(id=9), "ASSOCIATION_NOT_FOUND"),
        ("GetResult", registry_pb2.GetResultRequest(name="n/b1m1d1"), "RESULT_NOT_FOUND"),
        ("GetExecution", registry_pb2.GetExecutionRequest(id=9), "EXECUTION_NOT_FOUND"),
    ],
)
def test_what_is_not_there_is_named(bench: Bench, method: str, request_: Any, code: str) -> None:
    refused = call(bench, "Registry", method, request_)
    assert refused.code == code
    assert "9" in refused.message or "b1m1d1" in refused.message


def test_lists_are_empty_at_first_and_page_tokens_checked(bench: Bench) -> None:
    for method in ("Containers", "Benchmarks", "Models", "Datasets", "Associations", "Results"):
        request = getattr(registry_pb2, f"List{method}Request")()
        response = call(bench, "Registry", f"List{method}", request)
        assert not response.next_page_token
        assert not response.ListFields()
    refused = call(bench, "Registry", "ListModels", registry_pb2.ListModelsRequest(page_token="x"))
    assert refused.code == "PAGE_TOKEN_INVALID"


def test_a_broken_request_for_a_token_is_refused(bench: Bench) -> None:
    request = authority_pb2.IssueTokenRequest(envelope=b"{}", csr=b"x")
    assert call(bench, "Authority", "IssueToken", request).code == "STATEMENT_MALFORMED"
    listed = call(bench, "Authority", "ListTokens", authority_pb2.ListTokensRequest())
    assert not listed.tokens
