"""The method table is complete and denies by default."""

from __future__ import annotations

import pytest

from coordinator.caller import CallerRole
from coordinator.policy import METHODS, check_method
from housecall.errors import Refusal
from housecall.v1 import authority_pb2, fleet_pb2, ledger_pb2, registry_pb2


def rpcs() -> set[str]:
    return {
        f"/{service.full_name}/{method.name}"
        for module in (authority_pb2, fleet_pb2, ledger_pb2, registry_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def test_every_rpc_has_its_row_and_no_row_is_of_nothing() -> None:
    assert {m for m in METHODS if m.startswith("/housecall.")} == rpcs()


@pytest.mark.parametrize("method", sorted(rpcs()))
def test_a_join_token_opens_enrolment_only(method: str) -> None:
    if method.endswith("/Enrol"):
        check_method(method, CallerRole.JOINER)
        return
    with pytest.raises(Refusal) as caught:
        check_method(method, CallerRole.JOINER)
    assert caught.value.code == "METHOD_NOT_ALLOWED"
    assert "the caller is a joiner" in caught.value.message


def test_a_method_without_a_row_is_nobodys() -> None:
    with pytest.raises(Refusal, match="is for nobody"):
        check_method("/housecall.v1.Ledger/Rewrite", CallerRole.OPERATOR)
