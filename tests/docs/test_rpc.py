"""docs/rpc.md has a row for every RPC of the contract, with the roles that may call it."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import MethodDescriptor

from coordinator.policy import METHODS
from housecall.v1 import authority_pb2, fleet_pb2, ledger_pb2, registry_pb2, site_pb2
from tests.docs.pages import codes_in, keyed_rows, page

FILES = (authority_pb2, ledger_pb2, registry_pb2, fleet_pb2, site_pb2)
RPCS: dict[str, MethodDescriptor] = {
    f"{service.name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def documented() -> dict[str, list[str]]:
    return keyed_rows(page("rpc.md"))


def test_every_rpc_has_its_row_and_no_row_is_of_nothing() -> None:
    assert documented().keys() == RPCS.keys()


@pytest.mark.parametrize("name", RPCS)
def test_roles_are_those_of_the_table_of_methods(name: str) -> None:
    roles = METHODS.get(
        "/" + RPCS[name].full_name.replace(f".{RPCS[name].name}", "") + "/" + RPCS[name].name
    )
    expected = ", ".join(sorted(role.value for role in roles)) if roles else "local user"
    _, said, idempotent, what = documented()[name]
    assert said == expected
    assert idempotent in ("yes", "no", "read", "joins")
    assert what.endswith(".")


def test_reads_are_called_so() -> None:
    reading = ("Get", "List", "Watch", "Plan")
    for name, (_, _, idempotent, _) in documented().items():
        verb = name.partition("/")[2]
        assert verb.startswith(reading) == (idempotent == "read"), name


def test_other_services_on_the_port_are_named() -> None:
    others = {name.split("/")[1] for name in METHODS if not name.startswith("/housecall.v1.")}
    assert {name.rpartition(".")[0] for name in others} <= codes_in(page("rpc.md"))
